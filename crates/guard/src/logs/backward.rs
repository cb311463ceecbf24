//! A file's lines from its end, for the last few of ten megabytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const BLOCK_BYTES: u64 = 64 << 10;

#[derive(Debug)]
pub(super) struct Backward {
    file: File,
    /// Everything before this has not been read yet.
    unread: u64,
    /// Read and not yet given away, without the line end that it may have had.
    block: Vec<u8>,
    is_begun: bool,
    is_over: bool,
}

impl Backward {
    pub(super) fn new(file: File, end: u64) -> Self {
        Self { file, unread: end, block: Vec::new(), is_begun: false, is_over: end == 0 }
    }

    /// The line before the one given last, without its line end. `budget` is in bytes to be read and counts down; with
    /// nothing left of it there are no more lines.
    pub(super) fn next(&mut self, budget: &mut u64) -> io::Result<Option<Vec<u8>>> {
        if !std::mem::replace(&mut self.is_begun, true) && !self.is_over {
            self.read(budget)?;
            self.block.pop_if(|last| *last == b'\n');
        }
        while !self.is_over {
            if let Some(end) = memchr::memrchr(b'\n', &self.block) {
                let line = self.block.split_off(end + 1);
                self.block.truncate(end);
                return Ok(Some(line));
            }
            if self.unread == 0 {
                // The first line has no line end before it.
                self.is_over = true;
                return Ok(Some(std::mem::take(&mut self.block)));
            }
            self.is_over = !self.read(budget)?;
        }
        Ok(None)
    }

    fn read(&mut self, budget: &mut u64) -> io::Result<bool> {
        let length = BLOCK_BYTES.min(self.unread).min(*budget);
        if length == 0 {
            return Ok(false);
        }
        let mut block = vec![0; usize::try_from(length).unwrap_or(0)];
        self.file.read_exact_at(&mut block, self.unread - length)?;
        self.unread -= length;
        *budget -= length;
        block.append(&mut self.block);
        self.block = block;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn lines(text: &str, mut budget: u64) -> Vec<String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let mut backward = Backward::new(file, text.len() as u64);
        std::iter::from_fn(|| backward.next(&mut budget).unwrap())
            .map(|line| String::from_utf8(line).unwrap())
            .collect()
    }

    #[test]
    fn lines_come_last_first_whole_or_torn() {
        assert_eq!(lines("", 1 << 20), [""; 0]);
        assert_eq!(lines("\n", 1 << 20), [""]);
        assert_eq!(lines("one\n\ntwo\n", 1 << 20), ["two", "", "one"]);
        assert_eq!(lines("one\ntor", 1 << 20), ["tor", "one"]);
    }

    #[test]
    fn lines_that_lie_over_the_edges_of_blocks_are_whole() {
        let text = (0..20_000).map(|number| format!("line {number}\n")).collect::<Vec<_>>().concat();
        let found = lines(&text, u64::MAX);
        assert_eq!(found.len(), 20_000);
        assert_eq!((found[0].as_str(), found[19_999].as_str()), ("line 19999", "line 0"));
    }

    #[test]
    fn no_more_is_read_than_the_budget_allows() {
        let found = lines(&"0123456789\n".repeat(100), 25);
        assert_eq!(found, ["0123456789", "0123456789"]);
    }
}
