//! The files of one service: appended to, rotated by size, never more on the disk than their bounds.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::LogBounds;
use super::line::{self, Gap, Stamp};

/// Four times the longest line: smaller files could not hold one.
const FILE_BYTES_MIN: u64 = 64 << 10;
/// A file system that refuses is left alone for this long.
const RETRY: Duration = Duration::from_secs(1);
/// A deleted file is noticed after this long at most.
const LOST_CHECK: Duration = Duration::from_secs(1);

/// `current.log`, and `current.1.log` and so on into the past.
pub(super) fn file_path(folder: &Path, age: u32) -> PathBuf {
    match age {
        0 => folder.join("current.log"),
        age => folder.join(format!("current.{age}.log")),
    }
}

/// The age of a file of a series by its name.
pub(super) fn age_of(name: &str) -> Option<u32> {
    if name == "current.log" {
        return Some(0);
    }
    name.strip_prefix("current.")?.strip_suffix(".log")?.parse().ok().filter(|age| *age > 0)
}

#[derive(Debug)]
pub(super) struct Series {
    name: Arc<str>,
    bounds: LogBounds,
    open: Option<Open>,
    trouble: Option<Box<Trouble>>,
}

#[derive(Debug)]
struct Open {
    file: File,
    size: u64,
    checked: Instant,
}

/// The file system refuses, and so much was lost by it.
#[derive(Debug)]
struct Trouble {
    why: String,
    retry_at: Instant,
    gap: Gap,
}

impl Series {
    pub(super) fn new(name: Arc<str>, bounds: LogBounds) -> Self {
        Self { name, bounds, open: None, trouble: None }
    }

    pub(super) fn set_bounds(&mut self, bounds: LogBounds) {
        self.bounds = bounds;
        // Opening again brings the number of files in line.
        self.open = None;
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// Why nothing can be stored, while that is so.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble
            .as_ref()
            .map(|trouble| format!("output of {} cannot be stored: {}", self.name, trouble.why))
    }

    /// Stores whole lines. Returns what had to be dropped.
    pub(super) fn write(&mut self, logs: &Path, lines: &[u8], stamp: &mut Stamp) -> Gap {
        let now = Instant::now();
        let mut filled = Vec::new();
        let mut owed = Gap::default();
        if let Some(trouble) = &mut self.trouble {
            if now < trouble.retry_at {
                let gap = Gap::of(lines);
                trouble.gap.add(gap);
                return gap;
            }
            owed = trouble.gap;
            if !owed.is_empty() {
                let instance = first_instance(lines).unwrap_or_else(|| self.name.to_string());
                line::append_gap(&mut filled, stamp.now(), &instance, owed, &trouble.why);
            }
        }
        filled.extend_from_slice(lines);
        let mut left = filled.as_slice();
        match self.store(logs, &mut left, now) {
            Ok(()) => {
                self.trouble = None;
                Gap::default()
            }
            Err(error) => self.fail(&error, owed, lines, left, filled.len() != left.len()),
        }
    }

    fn fail(&mut self, error: &io::Error, owed: Gap, lines: &[u8], left: &[u8], is_begun: bool) -> Gap {
        // The file may be gone, or its file system: look again next time.
        self.open = None;
        let lost = Gap::of(if is_begun { left } else { lines });
        let mut gap = if is_begun { Gap::default() } else { owed };
        gap.add(lost);
        self.trouble =
            Some(Box::new(Trouble { why: error.to_string(), retry_at: Instant::now() + RETRY, gap }));
        lost
    }

    /// Leaves in `left` what could not be stored.
    fn store(&mut self, logs: &Path, left: &mut &[u8], now: Instant) -> io::Result<()> {
        let folder = logs.join(&*self.name);
        while !left.is_empty() {
            let (bounds, open) = (self.bounds, self.opened(&folder, now)?);
            let room = bounds.file_bytes.max(FILE_BYTES_MIN).saturating_sub(open.size);
            let fits = whole_lines_within(left, room);
            if fits == 0 {
                self.rotate(&folder)?;
                continue;
            }
            let (chunk, rest) = left.split_at(fits);
            open.append(chunk)?;
            *left = rest;
        }
        Ok(())
    }

    fn opened(&mut self, folder: &Path, now: Instant) -> io::Result<&mut Open> {
        let is_lost = match &mut self.open {
            Some(open) if now.saturating_duration_since(open.checked) >= LOST_CHECK => {
                open.checked = now;
                open.file.metadata()?.nlink() == 0
            }
            Some(_) => false,
            None => true,
        };
        if is_lost {
            self.open = None;
        }
        match self.open {
            Some(ref mut open) => Ok(open),
            None => Ok(self.open.insert(open_current(folder, self.bounds, now)?)),
        }
    }

    /// The oldest goes first, so that there is never one file too many.
    fn rotate(&mut self, folder: &Path) -> io::Result<()> {
        self.open = None;
        let last = self.bounds.files.max(1) - 1;
        unless_missing(fs::remove_file(file_path(folder, last)))?;
        for age in (0..last).rev() {
            unless_missing(fs::rename(file_path(folder, age), file_path(folder, age + 1)))?;
        }
        Ok(())
    }
}

impl Open {
    /// Writes all of it, or takes back what it wrote: a torn line would be the start of the next one.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        match self.file.write_all(lines) {
            Ok(()) => {
                self.size += line::whole(lines.len());
                Ok(())
            }
            Err(error) => {
                let _ = self.file.set_len(self.size);
                Err(error)
            }
        }
    }
}

fn open_current(folder: &Path, bounds: LogBounds, now: Instant) -> io::Result<Open> {
    DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
    remove_surplus(folder, bounds.files.max(1));
    let path = file_path(folder, 0);
    let file = OpenOptions::new().create(true).read(true).append(true).mode(0o640).open(path)?;
    let mut open = Open { size: file.metadata()?.len(), file, checked: now };
    if open.is_torn()? {
        // A guard was killed in the middle of a line.
        open.append(b"\n")?;
    }
    Ok(open)
}

impl Open {
    fn is_torn(&self) -> io::Result<bool> {
        let Some(last) = self.size.checked_sub(1) else { return Ok(false) };
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, last)?;
        Ok(byte != *b"\n")
    }
}

/// Files that are left over from a time when more were kept.
fn remove_surplus(folder: &Path, files: u32) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    for age in names.filter_map(|name| age_of(&name)).filter(|age| *age >= files) {
        // Next time, then.
        let _ = fs::remove_file(file_path(folder, age));
    }
}

fn unless_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// How many bytes of whole lines there are within so much room.
fn whole_lines_within(lines: &[u8], room: u64) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    if lines.len() <= room {
        return lines.len();
    }
    memchr::memrchr(b'\n', lines.get(..room).unwrap_or_default()).map_or(0, |end| end + 1)
}

fn first_instance(lines: &[u8]) -> Option<String> {
    let end = memchr::memchr(b'\n', lines)?;
    let parts = line::split(lines.get(..end)?)?;
    String::from_utf8(parts.instance.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(files: u32) -> Series {
        Series::new("reports".into(), LogBounds { file_bytes: FILE_BYTES_MIN, files })
    }

    fn sizes(folder: &Path) -> Vec<(u32, u64)> {
        let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
        let mut found: Vec<_> = entries
            .map(|it| (age_of(it.file_name().to_str().unwrap()).unwrap(), it.metadata().unwrap().len()))
            .collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn files_are_rotated_at_line_ends_and_never_too_many_or_too_large() {
        let logs = tempfile::tempdir().unwrap();
        let folder = logs.path().join("reports");
        let mut series = series(3);
        for round in 0..500 {
            let lines = format!("{round:0>99}\n").repeat(9);
            assert!(series.write(logs.path(), lines.as_bytes(), &mut Stamp::new()).is_empty());
            let found = sizes(&folder);
            assert!(
                found.len() <= 3 && found.iter().all(|(_, size)| *size <= FILE_BYTES_MIN && size % 100 == 0),
                "{found:?}"
            );
        }
        assert_eq!(sizes(&folder).len(), 3);
        assert!(fs::read_to_string(folder.join("current.log")).unwrap().ends_with("499\n"));
    }

    #[test]
    fn one_file_alone_begins_anew_and_surplus_files_go() {
        let logs = tempfile::tempdir().unwrap();
        let folder = logs.path().join("reports");
        fs::create_dir(&folder).unwrap();
        for age in [1, 2, 7] {
            fs::write(file_path(&folder, age), "old\n").unwrap();
        }
        let mut series = series(1);
        for _ in 0..20 {
            series.write(logs.path(), "x\n".repeat(20_000).as_bytes(), &mut Stamp::new());
        }
        assert_eq!(sizes(&folder).len(), 1);
    }

    #[test]
    fn a_torn_last_line_is_ended_before_the_next_begins() {
        let logs = tempfile::tempdir().unwrap();
        let folder = logs.path().join("reports");
        fs::create_dir(&folder).unwrap();
        fs::write(file_path(&folder, 0), "whole\ntor").unwrap();
        series(3).write(logs.path(), b"next\n", &mut Stamp::new());
        assert_eq!(fs::read_to_string(file_path(&folder, 0)).unwrap(), "whole\ntor\nnext\n");
    }

    #[test]
    fn what_cannot_be_stored_is_counted_and_told_when_it_can() {
        let logs = tempfile::tempdir().unwrap();
        let folder = logs.path().join("reports");
        fs::write(&folder, "in the way").unwrap();
        let mut series = series(3);
        let mut stamp = Stamp::new();
        assert_eq!(series.write(logs.path(), b"one\ntwo\n", &mut stamp), Gap { lines: 2, bytes: 8 });
        assert_eq!(series.write(logs.path(), b"three\n", &mut stamp).lines, 1, "left alone for a second");
        assert!(series.trouble().unwrap().starts_with("output of reports cannot be stored: "));
        fs::remove_file(&folder).unwrap();
        series.trouble.as_mut().unwrap().retry_at = Instant::now();
        assert!(series.write(logs.path(), b"four\n", &mut stamp).is_empty());
        let text = fs::read_to_string(file_path(&folder, 0)).unwrap();
        assert!(text.contains("reports | plimsoll dropped 3 lines (14 bytes) of output: "), "{text}");
        assert!(text.ends_with("\nfour\n") && series.trouble().is_none());
    }

    #[test]
    fn a_deleted_file_is_noticed() {
        let logs = tempfile::tempdir().unwrap();
        let folder = logs.path().join("reports");
        let mut series = series(3);
        series.write(logs.path(), b"one\n", &mut Stamp::new());
        fs::remove_dir_all(&folder).unwrap();
        series.open.as_mut().unwrap().checked = Instant::now().checked_sub(LOST_CHECK).unwrap();
        series.write(logs.path(), b"two\n", &mut Stamp::new());
        assert_eq!(fs::read_to_string(file_path(&folder, 0)).unwrap(), "two\n");
    }
}
