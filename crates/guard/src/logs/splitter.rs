//! From the bytes of a pipe to lines, with what is kept of a line that is not whole yet.

use super::line::{Gap, whole};

/// A longer line is cut, and marked where it was.
pub const LINE_BYTES_MAX: usize = 16 * 1024;
/// Ends the first part of a cut line and begins the next one.
pub(super) const CUT_MARK: &[u8] = " […] ".as_bytes();

/// One per pipe: an idle one costs a few words.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    partial: Vec<u8>,
    /// The start of this line has been given away already.
    is_continued: bool,
    /// The start of this line was dropped: the rest goes with it.
    is_skipping: bool,
}

/// A line, or a part of a long one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    pub(super) text: &'a [u8],
    pub(super) cut_before: bool,
    pub(super) cut_after: bool,
}

impl Splitter {
    /// Gives every line that is whole now. What [`Splitter::resume`] left is what it takes.
    pub(super) fn take(&mut self, bytes: &[u8], mut each: impl FnMut(Piece<'_>)) {
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(end);
            self.end_line(line, &mut each);
            rest = after.get(1..).unwrap_or_default();
        }
        self.grow(rest, &mut each);
    }

    /// Drops instead: what is here of a line takes the rest of that line with it.
    pub(super) fn drop(&mut self, bytes: &[u8]) -> Gap {
        let mut gap = Gap::of(bytes);
        gap.bytes += whole(self.partial.len());
        self.partial = Vec::new();
        self.is_continued = false;
        if let Some(last) = bytes.last() {
            self.is_skipping = *last != b'\n';
        }
        gap
    }

    /// The pipe has ended: what there is of a line is all there will be.
    pub(super) fn finish(&mut self, mut each: impl FnMut(Piece<'_>)) -> Gap {
        if std::mem::take(&mut self.is_skipping) {
            return Gap { lines: 1, bytes: 0 };
        }
        if !self.partial.is_empty() {
            self.end_line(&[], &mut each);
        }
        Gap::default()
    }

    /// After a drop: what still belongs to the dropped line, and the rest.
    pub(super) fn resume<'a>(&mut self, bytes: &'a [u8]) -> (Gap, &'a [u8]) {
        if !self.is_skipping {
            return (Gap::default(), bytes);
        }
        match memchr::memchr(b'\n', bytes) {
            Some(end) => {
                self.is_skipping = false;
                let (skipped, rest) = bytes.split_at(end + 1);
                (Gap::of(skipped), rest)
            }
            None => (Gap { lines: 0, bytes: whole(bytes.len()) }, &[]),
        }
    }

    fn end_line(&mut self, line: &[u8], each: &mut impl FnMut(Piece<'_>)) {
        if self.partial.is_empty() && line.len() <= LINE_BYTES_MAX {
            let text = line.strip_suffix(b"\r").unwrap_or(line);
            each(Piece { text, cut_before: std::mem::take(&mut self.is_continued), cut_after: false });
            return;
        }
        self.grow(line, each);
        // Given back: most pipes are idle most of the time.
        let partial = std::mem::take(&mut self.partial);
        let text = partial.strip_suffix(b"\r").unwrap_or(&partial);
        each(Piece { text, cut_before: std::mem::take(&mut self.is_continued), cut_after: false });
    }

    fn grow(&mut self, mut bytes: &[u8], each: &mut impl FnMut(Piece<'_>)) {
        while self.partial.len() + bytes.len() > LINE_BYTES_MAX {
            let room = LINE_BYTES_MAX - self.partial.len();
            let (now, later) = bytes.split_at(room);
            self.partial.extend_from_slice(now);
            let keep = char_end(&self.partial);
            let cut_before = std::mem::replace(&mut self.is_continued, true);
            let text = self.partial.get(..keep).unwrap_or_default();
            each(Piece { text, cut_before, cut_after: true });
            self.partial.drain(..keep);
            bytes = later;
        }
        self.partial.extend_from_slice(bytes);
    }
}

/// Where the last whole character ends, so that a cut does not break one. All of it when it is not UTF-8.
fn char_end(bytes: &[u8]) -> usize {
    let tail = bytes.iter().rev().take(4);
    let Some(back) = tail.clone().position(|byte| byte & 0xc0 != 0x80) else { return bytes.len() };
    let start = bytes.len() - 1 - back;
    let wanted = match bytes.get(start) {
        Some(0xc0..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf7) => 4,
        _ => 1,
    };
    if back + 1 < wanted { start } else { bytes.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(splitter: &mut Splitter, bytes: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        splitter.take(bytes, |piece| found.push(String::from_utf8(piece.text.to_vec()).unwrap()));
        found
    }

    #[test]
    fn a_line_is_given_once_it_is_whole() {
        let mut splitter = Splitter::default();
        assert_eq!(texts(&mut splitter, b"one\r\ntw"), ["one"]);
        assert_eq!(texts(&mut splitter, b"o\n\nth"), ["two", ""]);
        let mut last = Vec::new();
        splitter.finish(|piece| last.push(piece.text.to_vec()));
        assert_eq!(last, [b"th".to_vec()]);
    }

    #[test]
    fn a_long_line_is_cut_between_characters_and_marked() {
        let mut splitter = Splitter::default();
        let line = "ä".repeat(LINE_BYTES_MAX) + "end\n";
        let mut pieces = Vec::new();
        for chunk in format!("x{line}").as_bytes().chunks(1000) {
            splitter.take(chunk, |it| {
                pieces.push((String::from_utf8(it.text.to_vec()).unwrap(), it.cut_before, it.cut_after));
            });
        }
        let cuts: Vec<_> = pieces.iter().map(|(_, before, after)| (*before, *after)).collect();
        assert_eq!(cuts, [(false, true), (true, true), (true, false)]);
        assert!(pieces.iter().all(|(text, ..)| text.len() <= LINE_BYTES_MAX));
        assert_eq!(
            pieces.iter().map(|(text, ..)| text.as_str()).collect::<String>() + "\n",
            format!("x{line}")
        );
    }

    #[test]
    fn a_line_begun_before_or_in_a_gap_goes_with_the_gap() {
        let mut splitter = Splitter::default();
        assert_eq!(texts(&mut splitter, b"kept\nbegun"), ["kept"]);
        assert_eq!(splitter.drop(b" on\nlost\nhalf"), Gap { lines: 2, bytes: 18 });
        let mut found = Vec::new();
        assert_eq!(splitter.resume(b" is"), (Gap { lines: 0, bytes: 3 }, &b""[..]));
        let (gap, rest) = splitter.resume(b" gone\nback\n");
        splitter.take(rest, |piece| found.push(piece.text.to_vec()));
        assert_eq!((gap, found), (Gap { lines: 1, bytes: 6 }, vec![b"back".to_vec()]));
    }
}
