//! Open descriptors: how many, and of which kind, since the kind tells what leaks.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use super::sockets::{Socket, Sockets, TcpState};
use crate::process::{list_of_process, read_of_process};
use crate::{Error, Result, Roots};

/// How many descriptors a process has open. From Linux 6.2 on one `stat`; before that a listing, whose price grows with
/// the number (about 1 ms for 4,000).
pub fn count(roots: &Roots, pid: i32) -> Result<u64> {
    let folder = roots.process_file(pid, "fd");
    let size = fs::metadata(&folder)
        .map_err(|error| Error::process("look at the descriptors of", pid, error))?
        .len();
    if size > 0 {
        return Ok(size);
    }
    // An old kernel, or really none.
    let listed = list_of_process(roots, pid, "fd")?.count();
    Ok(u64::try_from(listed).unwrap_or(u64::MAX))
}

/// The descriptors of one process, to be counted again and again: its folder is looked up once, and so no other process
/// that gets the pid is ever counted for it.
#[derive(Debug)]
pub struct Counter {
    pid: i32,
    folder: OwnedFd,
}

impl Counter {
    pub fn of(roots: &Roots, pid: i32) -> Result<Self> {
        let folder = rustix::fs::open(
            roots.process_file(pid, "fd"),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|error| Error::process("look at the descriptors of", pid, error))?;
        Ok(Self { pid, folder })
    }

    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// As [`count`] says it.
    pub fn count(&self, roots: &Roots) -> Result<u64> {
        let found = rustix::fs::fstat(&self.folder)
            .map_err(|error| Error::process("look at the descriptors of", self.pid, error))?;
        match u64::try_from(found.st_size) {
            Ok(size) if size > 0 => Ok(size),
            Ok(_) | Err(_) => count(roots, self.pid),
        }
    }
}

/// `RLIMIT_NOFILE` in force for a process; [`u64::MAX`] when unlimited.
pub fn soft_limit(roots: &Roots, pid: i32) -> Result<u64> {
    let path = roots.process_file(pid, "limits");
    let limits = read_of_process(&path, pid)?;
    let soft = limits.lines().find_map(|line| {
        let value = line.strip_prefix("Max open files")?.split_ascii_whitespace().next()?;
        if value == "unlimited" { Some(u64::MAX) } else { value.parse().ok() }
    });
    soft.ok_or(Error::Malformed { path, found: limits })
}

/// How much a table may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub entries_max: usize,
    pub within: Duration,
}

/// Descriptors of a process by kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// How many were looked at.
    pub seen: usize,
    /// False when the budget ended before the descriptors did: `seen` is then a lower bound, and sockets may be counted
    /// as [`DescriptorKind::Socket`].
    pub complete: bool,
    /// Most frequent first.
    pub kinds: Vec<KindCount>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindCount {
    pub kind: DescriptorKind,
    pub count: usize,
}

/// Which end of a TCP connection we are. The port is the one that stays the same over many connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// Somebody connected to us, on our `port`.
    Inbound { port: u16 },
    /// We connected to somebody's `port`.
    Outbound { peer_port: u16 },
    /// Listening, or not connected.
    None { port: u16 },
}

/// What a descriptor refers to, coarse enough that a leak piles up in one kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DescriptorKind {
    /// Regular files by the folder that they are in.
    File {
        folder: PathBuf,
        deleted: bool,
    },
    Device {
        path: PathBuf,
    },
    Tcp {
        state: TcpState,
        side: Side,
    },
    Udp,
    Unix,
    /// Netlink, raw and the like, and sockets of another network namespace.
    Socket,
    Pipe,
    EventFd,
    EventPoll,
    Inotify,
    TimerFd,
    SignalFd,
    Memfd,
    /// `io_uring`, `pidfd`, `userfaultfd`, …
    Anon {
        name: String,
    },
}

impl fmt::Display for DescriptorKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { folder, deleted: false } => write!(out, "files in {}", folder.display()),
            Self::File { folder, deleted: true } => write!(out, "deleted files in {}", folder.display()),
            Self::Device { path } => write!(out, "device {}", path.display()),
            Self::Tcp { state, side } => match side {
                Side::Inbound { port } => write!(out, "TCP {} from clients of port {port}", state.name()),
                Side::Outbound { peer_port } => write!(out, "TCP {} to port {peer_port}", state.name()),
                Side::None { port } => write!(out, "TCP {} on port {port}", state.name()),
            },
            Self::Udp => out.write_str("UDP sockets"),
            Self::Unix => out.write_str("unix sockets"),
            Self::Socket => out.write_str("other sockets"),
            Self::Pipe => out.write_str("pipes"),
            Self::EventFd => out.write_str("eventfd"),
            Self::EventPoll => out.write_str("epoll"),
            Self::Inotify => out.write_str("inotify"),
            Self::TimerFd => out.write_str("timerfd"),
            Self::SignalFd => out.write_str("signalfd"),
            Self::Memfd => out.write_str("memfd"),
            Self::Anon { name } => out.write_str(name),
        }
    }
}

/// Breaks a process's descriptors down by kind, within the budget.
pub fn table(roots: &Roots, pid: i32, budget: Budget) -> Result<Table> {
    let deadline = Instant::now() + budget.within;
    let mut targets = HashMap::new();
    let (seen, listed_all) = each_target(roots, pid, budget.entries_max, deadline, |target| {
        *targets.entry(target).or_insert(0_usize) += 1;
    })?;
    let has_sockets = targets.keys().any(|target| socket_inode(target).is_some());
    let sockets = has_sockets.then(|| Sockets::read(&roots.process_file(pid, "net"), deadline));
    let listening = sockets.as_ref().map(Sockets::listening_ports).unwrap_or_default();
    let mut counts = HashMap::new();
    for (target, count) in targets {
        *counts.entry(kind_of(&target, sockets.as_ref(), &listening)).or_insert(0) += count;
    }
    let mut kinds: Vec<_> = counts.into_iter().map(|(kind, count)| KindCount { kind, count }).collect();
    kinds.sort_by(|one, other| other.count.cmp(&one.count).then_with(|| one.kind.cmp(&other.kind)));
    let complete = listed_all && sockets.is_none_or(|sockets| sockets.complete);
    Ok(Table { seen, complete, kinds })
}

fn each_target(
    roots: &Roots,
    pid: i32,
    entries_max: usize,
    deadline: Instant,
    mut take: impl FnMut(PathBuf),
) -> Result<(usize, bool)> {
    let mut seen = 0;
    for entry in list_of_process(roots, pid, "fd")? {
        if seen >= entries_max || Instant::now() >= deadline {
            return Ok((seen, false));
        }
        let Ok(entry) = entry else { return Ok((seen, false)) };
        // One that was closed since it was listed is not open.
        if let Ok(target) = fs::read_link(entry.path()) {
            seen += 1;
            take(target);
        }
    }
    Ok((seen, true))
}

fn socket_inode(target: &Path) -> Option<u64> {
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn kind_of(target: &Path, sockets: Option<&Sockets>, listening: &[u16]) -> DescriptorKind {
    if let Some(inode) = socket_inode(target) {
        return match sockets.and_then(|sockets| sockets.by_inode.get(&inode)) {
            Some(Socket::Tcp(entry)) => {
                DescriptorKind::Tcp { state: entry.state, side: side(entry, listening) }
            }
            Some(Socket::Udp) => DescriptorKind::Udp,
            Some(Socket::Unix) => DescriptorKind::Unix,
            None => DescriptorKind::Socket,
        };
    }
    let name = target.as_os_str().as_bytes();
    if name.starts_with(b"pipe:[") {
        return DescriptorKind::Pipe;
    }
    if let Some(anon) = name.strip_prefix(b"anon_inode:") {
        return anon_kind(&String::from_utf8_lossy(anon));
    }
    if name.starts_with(b"/memfd:") {
        return DescriptorKind::Memfd;
    }
    if name.starts_with(b"/dev/") && !name.starts_with(b"/dev/shm/") {
        return DescriptorKind::Device { path: target.to_owned() };
    }
    let deleted = name.ends_with(b" (deleted)");
    let folder = target.parent().unwrap_or(target).to_owned();
    DescriptorKind::File { folder, deleted }
}

fn side(entry: &super::sockets::Entry, listening: &[u16]) -> Side {
    let port = entry.local.port();
    match entry.state {
        TcpState::Listen | TcpState::Close => Side::None { port },
        TcpState::Established
        | TcpState::SynSent
        | TcpState::SynRecv
        | TcpState::FinWait1
        | TcpState::FinWait2
        | TcpState::TimeWait
        | TcpState::CloseWait
        | TcpState::LastAck
        | TcpState::Closing
        | TcpState::Unknown => {
            if listening.contains(&port) {
                Side::Inbound { port }
            } else {
                Side::Outbound { peer_port: entry.peer.port() }
            }
        }
    }
}

/// `[eventfd]` for most, `inotify` for the oldest ones.
fn anon_kind(name: &str) -> DescriptorKind {
    let name = name.trim_start_matches('[').trim_end_matches(']');
    match name {
        "eventfd" => DescriptorKind::EventFd,
        "eventpoll" => DescriptorKind::EventPoll,
        "inotify" => DescriptorKind::Inotify,
        "timerfd" => DescriptorKind::TimerFd,
        "signalfd" => DescriptorKind::SignalFd,
        other => DescriptorKind::Anon { name: other.to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(target: &str) -> DescriptorKind {
        kind_of(Path::new(target), None, &[])
    }

    #[test]
    fn names_in_proc_are_understood() {
        assert_eq!(kind("pipe:[12]"), DescriptorKind::Pipe);
        assert_eq!(kind("socket:[12]"), DescriptorKind::Socket);
        assert_eq!(kind("anon_inode:[eventpoll]"), DescriptorKind::EventPoll);
        assert_eq!(kind("anon_inode:inotify"), DescriptorKind::Inotify);
        assert_eq!(kind("anon_inode:[io_uring]"), DescriptorKind::Anon { name: "io_uring".to_owned() });
        assert_eq!(kind("/memfd:x (deleted)"), DescriptorKind::Memfd);
        assert_eq!(kind("/dev/null"), DescriptorKind::Device { path: "/dev/null".into() });
        assert_eq!(kind("/srv/a/b.db"), DescriptorKind::File { folder: "/srv/a".into(), deleted: false });
        assert_eq!(kind("/tmp/x (deleted)"), DescriptorKind::File { folder: "/tmp".into(), deleted: true });
    }

    #[test]
    fn a_budget_that_ends_is_said_to_have_ended() {
        let own = std::process::id().cast_signed();
        let budget = Budget { entries_max: 1, within: Duration::from_secs(5) };
        let cut = table(&Roots::default(), own, budget).unwrap();
        assert_eq!((cut.seen, cut.complete), (1, false));
    }

    #[test]
    fn a_counter_says_what_a_single_look_says() {
        let own = std::process::id().cast_signed();
        let roots = Roots::default();
        let counter = Counter::of(&roots, own).unwrap();
        let opened: Vec<_> = (0..100).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        // Other tests of this process open and close a few meanwhile.
        let (kept, looked) = (counter.count(&roots).unwrap(), count(&roots, own).unwrap());
        assert!(kept > 100 && kept.abs_diff(looked) < 50, "{kept} and {looked}");
        drop(opened);
    }

    #[test]
    fn our_own_limit_is_read() {
        let own = std::process::id().cast_signed();
        let limit = soft_limit(&Roots::default(), own).unwrap();
        assert!(limit > 0);
    }
}
