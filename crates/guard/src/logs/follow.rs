//! Following a service's output as it is written, over rotations.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use super::line::{LogLine, Parser};
use super::read::{SeriesFile, collect_last, files, folder_of};

const BLOCK_BYTES: usize = 64 << 10;
/// The files are looked at this often even when nothing is heard, where inotify is not to be had or misses something.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Lines as they come. See [`follow`].
#[derive(Debug)]
pub struct Follow {
    folder: PathBuf,
    now: Option<Position>,
    /// Files that come after the one that is read now; once there is one, nothing is added to that any more.
    next: VecDeque<SeriesFile>,
    ready: VecDeque<LogLine>,
    since: Option<Timestamp>,
    parser: Parser,
    inotify: Option<OwnedFd>,
    is_watched: bool,
}

#[derive(Debug)]
struct Position {
    file: SeriesFile,
    offset: u64,
    /// The start of a line whose end has not been written yet.
    partial: Vec<u8>,
}

/// What a service has printed, as [`super::read()`] gives it, and then what it goes on to print. A service that has not
/// printed anything yet is waited for.
pub fn follow(
    logs: &Path,
    service: &str,
    since: Option<Timestamp>,
    last: Option<usize>,
) -> io::Result<Follow> {
    let folder = folder_of(logs, service)?;
    let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok();
    let mut follow = Follow {
        folder,
        now: None,
        next: VecDeque::new(),
        ready: VecDeque::new(),
        since,
        parser: Parser::new(),
        inotify,
        is_watched: false,
    };
    follow.watch();
    follow.next = follow.files()?;
    if let Some(last) = last {
        follow.begin_with_last(last)?;
    }
    Ok(follow)
}

impl Follow {
    /// The next line, if there is one within the time.
    pub fn next_within(&mut self, within: Duration) -> io::Result<Option<LogLine>> {
        let until = Instant::now() + within;
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            if self.advance()? {
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.wait(left.min(LOOK_EVERY));
        }
    }

    /// Takes the last lines as they stand, and goes on where the newest file's last whole line ends.
    fn begin_with_last(&mut self, last: usize) -> io::Result<()> {
        let Some(newest) = self.next.pop_back() else { return Ok(()) };
        let length = whole_lines_end(&newest)?;
        let mut before = std::mem::take(&mut self.next);
        before.push_back(SeriesFile { file: newest.file.try_clone()?, inode: newest.inode });
        self.ready = collect_last(&mut before, length, self.since, last)?.into();
        self.now = Some(Position { file: newest, offset: length, partial: Vec::new() });
        Ok(())
    }

    fn files(&self) -> io::Result<VecDeque<SeriesFile>> {
        match files(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(VecDeque::new()),
            found => found,
        }
    }

    /// Reads a little further. False when there is nothing more now.
    fn advance(&mut self) -> io::Result<bool> {
        let Some(position) = &mut self.now else {
            if self.next.is_empty() {
                self.next = self.files()?;
            }
            let file = self.next.pop_front();
            self.now = file.map(|file| Position { file, offset: 0, partial: Vec::new() });
            return Ok(self.now.is_some());
        };
        let mut block = vec![0; BLOCK_BYTES];
        let length = position.file.file.read_at(&mut block, position.offset)?;
        if length > 0 {
            position.offset += super::line::whole(length);
            block.truncate(length);
            self.take(&block);
            return Ok(true);
        }
        if !self.next.is_empty() {
            self.end_file();
            return Ok(true);
        }
        // Written to the end: unless it is not the newest any more, and then it has to be looked at once again.
        let inode = position.file.inode;
        let mut found = self.files()?;
        if let Some(place) = found.iter().position(|file| file.inode == inode) {
            found.drain(..=place);
        }
        self.next = found;
        Ok(!self.next.is_empty())
    }

    fn take(&mut self, mut bytes: &[u8]) {
        let Some(position) = &mut self.now else { return };
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at(end);
            position.partial.extend_from_slice(line);
            let line = self.parser.parse(&std::mem::take(&mut position.partial));
            if self.since.is_none_or(|since| line.time >= since) {
                self.ready.push_back(line);
            }
            bytes = rest.get(1..).unwrap_or_default();
        }
        position.partial.extend_from_slice(bytes);
    }

    /// What is torn at the end of a file that is not written any more stays torn.
    fn end_file(&mut self) {
        let Some(position) = self.now.take() else { return };
        if !position.partial.is_empty() {
            self.ready.push_back(self.parser.parse(&position.partial));
        }
    }

    fn watch(&mut self) {
        let Some(inotify) = &self.inotify else { return };
        let flags = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        self.is_watched = inotify::add_watch(inotify, &self.folder, flags).is_ok();
    }

    fn wait(&mut self, within: Duration) {
        if !self.is_watched {
            // Perhaps the folder is there by now.
            self.watch();
        }
        let timeout = Timespec::try_from(within).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
        let Some(inotify) = &self.inotify else {
            let _ = poll(&mut [], Some(&timeout));
            return;
        };
        let _ = poll(&mut [PollFd::new(inotify, PollFlags::IN)], Some(&timeout));
        let mut ignored = [0; 4096];
        while rustix::io::read(inotify, &mut ignored).is_ok_and(|length| length > 0) {}
    }
}

fn whole_lines_end(file: &SeriesFile) -> io::Result<u64> {
    let mut end = file.file.metadata()?.len();
    let mut block = vec![0; BLOCK_BYTES];
    while end > 0 {
        let length = block.len().min(usize::try_from(end).unwrap_or(usize::MAX));
        let start = end - super::line::whole(length);
        let block = block.get_mut(..length).unwrap_or_default();
        file.file.read_exact_at(block, start)?;
        if let Some(last) = memchr::memrchr(b'\n', block) {
            return Ok(start + super::line::whole(last) + 1);
        }
        end = start;
    }
    Ok(0)
}
