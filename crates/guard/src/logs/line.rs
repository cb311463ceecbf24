//! One line as it lies in the file: time, instance, text.

use std::borrow::Cow;
use std::fmt::Write;

use jiff::Timestamp;

use crate::records::time;

/// Between the instance and the text.
const BAR: &[u8] = b" | ";
/// Bytes of `2026-11-23T20:00:00.123Z`.
const TIME_BYTES: usize = 24;

/// A line of a service's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When the pump read it.
    pub time: Timestamp,
    /// `reports.7`; empty for a line that something else left in the file, or a torn one.
    pub instance: String,
    /// As the service wrote it, less its line end; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// Reads lines back. A line that is not in our form takes the time of the one before.
#[derive(Debug)]
pub(super) struct Parser {
    before: Timestamp,
}

impl Parser {
    pub(super) fn new() -> Self {
        Self { before: Timestamp::UNIX_EPOCH }
    }

    pub(super) fn parse(&mut self, line: &[u8]) -> LogLine {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let parsed = split(line).and_then(|parts| {
            let time = std::str::from_utf8(parts.time).ok()?.parse().ok()?;
            Some(LogLine { time, instance: text(parts.instance), text: text(parts.text) })
        });
        let found = parsed.unwrap_or_else(|| LogLine {
            time: self.before,
            instance: String::new(),
            text: text(line),
        });
        self.before = found.time;
        found
    }
}

pub(super) struct Parts<'a> {
    pub(super) time: &'a [u8],
    pub(super) instance: &'a [u8],
    pub(super) text: &'a [u8],
}

/// Takes a line apart without looking at its content.
pub(super) fn split(line: &[u8]) -> Option<Parts<'_>> {
    let (time, rest) = line.split_at_checked(TIME_BYTES)?;
    let rest = rest.strip_prefix(b" ")?;
    let bar = memchr::memmem::find(rest, BAR)?;
    Some(Parts { time, instance: rest.get(..bar)?, text: rest.get(bar + BAR.len()..)? })
}

/// Appends a whole line. `stamp` is the time in the records' form.
pub(super) fn append(out: &mut Vec<u8>, stamp: &str, instance: &str, text: &[&[u8]]) {
    out.extend_from_slice(stamp.as_bytes());
    out.push(b' ');
    out.extend_from_slice(instance.as_bytes());
    out.extend_from_slice(BAR);
    for part in text {
        // Allocates only where bytes have to be replaced.
        out.extend_from_slice(String::from_utf8_lossy(part).as_bytes());
    }
    out.push(b'\n');
}

/// The line that stands for output which is not there.
pub(super) fn append_gap(out: &mut Vec<u8>, stamp: &str, instance: &str, gap: Gap, why: &str) {
    let Gap { lines, bytes } = gap;
    let text = format!("plimsoll dropped {lines} lines ({bytes} bytes) of output: {why}");
    append(out, stamp, instance, &[text.as_bytes()]);
}

/// Output that was not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) lines: u64,
    pub(super) bytes: u64,
}

impl Gap {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self { lines: whole(memchr::memchr_iter(b'\n', bytes).count()), bytes: whole(bytes.len()) }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.lines += other.lines;
        self.bytes += other.bytes;
    }

    pub(super) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

pub(super) fn whole(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// The records' form of a time, kept as long as the millisecond lasts.
#[derive(Debug)]
pub(super) struct Stamp {
    millisecond: i64,
    text: String,
}

impl Stamp {
    pub(super) fn new() -> Self {
        Self { millisecond: i64::MIN, text: String::new() }
    }

    pub(super) fn now(&mut self) -> &str {
        let now = Timestamp::now();
        if now.as_millisecond() != self.millisecond {
            self.millisecond = now.as_millisecond();
            self.text = time::text(now);
        }
        &self.text
    }
}

/// The text with its control characters made visible, except the tab: what a service prints must not move the cursor,
/// set a title or hide a line on the terminal of whoever reads its log.
pub fn for_terminal(text: &str) -> Cow<'_, str> {
    let is_unsafe = |char: char| char.is_control() && char != '\t';
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        if is_unsafe(char) {
            // Writing to a string cannot fail.
            let _ = write!(shown, "\\x{:02x}", u32::from(char));
        } else {
            shown.push(char);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_back_as_it_was_written() {
        let mut out = Vec::new();
        append(&mut out, "2026-11-23T20:00:00.123Z", "reports.7", &[b"a | b\t", b"\xff!"]);
        assert_eq!(out, "2026-11-23T20:00:00.123Z reports.7 | a | b\t\u{fffd}!\n".as_bytes());
        let line = Parser::new().parse(&out[..out.len() - 1]);
        assert_eq!((line.instance.as_str(), line.text.as_str()), ("reports.7", "a | b\t\u{fffd}!"));
        assert_eq!(time::text(line.time), "2026-11-23T20:00:00.123Z");
    }

    #[test]
    fn a_line_of_another_form_keeps_its_text_and_takes_the_time_before() {
        let mut parser = Parser::new();
        let before = parser.parse(b"2026-11-23T20:00:00.123Z reports.7 | x").time;
        for torn in [
            "",
            "torn",
            "2026-11-23T20:00",
            "2026-11-23T20:00:00.123Z no bar",
            "not a time at all, really | x",
        ] {
            let line = parser.parse(torn.as_bytes());
            assert_eq!((line.time, line.instance.as_str(), line.text.as_str()), (before, "", torn));
        }
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(for_terminal("a\tb ä"), "a\tb ä");
        assert_eq!(for_terminal("\u{1b}[2Jgone\r\u{9b}"), "\\x1b[2Jgone\\x0d\\x9b");
    }
}
