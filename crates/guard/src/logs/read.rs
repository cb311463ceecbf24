//! Reading a service's output back, over all its files, while it is being written or long after.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;

use super::backward::Backward;
use super::line::{LogLine, Parser, split};
use super::series::{age_of, file_path};

/// Lines that may be asked for by number; they are held in memory.
const LAST_MAX: usize = 100_000;

/// The service's folder. A name from a command line must not lead out of it.
pub(super) fn folder_of(logs: &Path, service: &str) -> io::Result<PathBuf> {
    let mut components = Path::new(service).components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(name)), None) if name == service => Ok(logs.join(service)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{service:?} cannot name a service"))),
    }
}

/// One of a service's files, held open: it can be read on after it was rotated or removed.
#[derive(Debug)]
pub(super) struct SeriesFile {
    pub(super) file: File,
    pub(super) inode: u64,
}

/// All files, oldest first. They are opened from the newest on, so that a rotation meanwhile shows one twice instead of
/// hiding one.
pub(super) fn files(folder: &Path) -> io::Result<VecDeque<SeriesFile>> {
    let entries = std::fs::read_dir(folder)?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let oldest = names.filter_map(|name| age_of(&name)).max();
    let mut found: VecDeque<SeriesFile> = VecDeque::new();
    // One more than there were: a rotation may just have made it.
    for age in 0..=oldest.map_or(0, |age| age.saturating_add(1)) {
        let file = match File::open(file_path(folder, age)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let inode = file.metadata()?.ino();
        if found.iter().all(|known| known.inode != inode) {
            found.push_front(SeriesFile { file, inode });
        }
    }
    Ok(found)
}

/// Lines of a service's output, oldest first. See [`read`].
#[derive(Debug)]
pub struct Lines {
    source: Source,
    since: Option<Timestamp>,
    parser: Parser,
}

#[derive(Debug)]
enum Source {
    Files { now: Option<BufReader<File>>, next: VecDeque<SeriesFile> },
    Collected(std::vec::IntoIter<LogLine>),
}

/// What a service printed, all its instances in the order in which it was read: from a time on, or the last so many
/// lines, or the last so many from that time on. `logs` is the folder with one folder per service.
/// [`io::ErrorKind::NotFound`] when the service has never printed anything.
pub fn read(logs: &Path, service: &str, since: Option<Timestamp>, last: Option<usize>) -> io::Result<Lines> {
    let mut files = files(&folder_of(logs, service)?)?;
    let source = match last {
        Some(last) => Source::Collected(collect_last(&mut files, u64::MAX, since, last)?.into_iter()),
        None => Source::Files { now: None, next: files },
    };
    Ok(Lines { source, since, parser: Parser::new() })
}

impl Iterator for Lines {
    type Item = LogLine;

    fn next(&mut self) -> Option<LogLine> {
        let (now, next) = match &mut self.source {
            Source::Collected(lines) => return lines.next(),
            Source::Files { now, next } => (now, next),
        };
        loop {
            let Some(reader) = now else {
                *now = Some(BufReader::new(next.pop_front()?.file));
                continue;
            };
            let mut line = Vec::new();
            // A file that cannot be read on ends there.
            if reader.read_until(b'\n', &mut line).unwrap_or(0) == 0 {
                *now = None;
                continue;
            }
            let line = self.parser.parse(line.strip_suffix(b"\n").unwrap_or(&line));
            if self.since.is_none_or(|since| line.time >= since) {
                return Some(line);
            }
        }
    }
}

/// The last lines before `end` of the newest file, oldest first; reads no more of the files than it needs.
pub(super) fn collect_last(
    files: &mut VecDeque<SeriesFile>,
    mut end: u64,
    since: Option<Timestamp>,
    last: usize,
) -> io::Result<Vec<LogLine>> {
    let (last, mut budget, mut raw) = (last.min(LAST_MAX), u64::MAX, Vec::new());
    'files: while let Some(file) = files.pop_back() {
        let length = file.file.metadata()?.len().min(std::mem::replace(&mut end, u64::MAX));
        let mut backward = Backward::new(file.file, length);
        while raw.len() < last {
            let Some(line) = backward.next(&mut budget)? else { continue 'files };
            if is_before(&line, since) {
                break 'files;
            }
            raw.push(line);
        }
        break;
    }
    let mut parser = Parser::new();
    Ok(raw.iter().rev().map(|line| parser.parse(line)).collect())
}

fn is_before(line: &[u8], since: Option<Timestamp>) -> bool {
    let Some(since) = since else { return false };
    let time = split(line).and_then(|parts| std::str::from_utf8(parts.time).ok()?.parse::<Timestamp>().ok());
    time.is_some_and(|time| time < since)
}

/// The last lines of one instance as they are stored, oldest first, out of the last `bytes_max` of the service's output:
/// for evidence, where time is short. What cannot be read is simply not there.
pub fn tail_lines(logs: &Path, service: &str, instance: &str, lines: usize, bytes_max: u64) -> Vec<String> {
    let Ok(mut files) = folder_of(logs, service).and_then(|folder| files(&folder)) else { return Vec::new() };
    let (mut budget, mut found) = (bytes_max, Vec::new());
    while let Some(file) = files.pop_back() {
        let Ok(metadata) = file.file.metadata() else { continue };
        let mut backward = Backward::new(file.file, metadata.len());
        while found.len() < lines {
            let Ok(Some(line)) = backward.next(&mut budget) else { break };
            if split(&line).is_some_and(|parts| parts.instance == instance.as_bytes()) {
                found.push(String::from_utf8_lossy(&line).into_owned());
            }
        }
    }
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_lead_out_of_the_folder() {
        let logs = Path::new("/var/lib/plimsoll/logs");
        assert_eq!(folder_of(logs, "reports").unwrap(), logs.join("reports"));
        for name in ["", ".", "..", "../x", "/etc", "a/b", "a/"] {
            assert!(folder_of(logs, name).is_err(), "{name}");
        }
    }
}
