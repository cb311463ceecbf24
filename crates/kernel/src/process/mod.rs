//! Processes: who they are, who belongs to whom, and signals that cannot hit the wrong one.

mod about;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
pub use rustix::process::Signal;
use rustix::process::{Pid, PidfdFlags, kill_process, pidfd_open, pidfd_send_signal};

use crate::{Error, Result, Roots, text};

pub use about::{CgroupMembership, cgroup_of, cmdline, environ_has, environ_names, exe, uid_of};

/// A process for as long as it lives: pids are used again, a pid with its start time is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    pub pid: i32,
    /// Clock ticks since boot, field 22 of `/proc/PID/stat`.
    pub start_time: u64,
}

impl Identity {
    /// The process that has this pid now.
    pub fn of(roots: &Roots, pid: i32) -> Result<Self> {
        Ok(Stat::of(roots, pid)?.identity())
    }

    /// A process that had ended before anybody could look at it: no signal reaches it, whoever has its pid now.
    pub const fn gone(pid: i32) -> Self {
        Self { pid, start_time: u64::MAX }
    }

    /// It has not ended. A zombie has.
    pub fn is_alive(&self, roots: &Roots) -> bool {
        Stat::of(roots, self.pid).is_ok_and(|stat| stat.start_time == self.start_time && !stat.has_ended())
    }
}

/// What `/proc/PID/stat` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    pub pid: i32,
    /// The name of the main thread, at most 15 bytes.
    pub comm: String,
    /// `R`, `S`, `D`, `Z`, …
    pub state: char,
    pub ppid: i32,
    pub session: i32,
    /// Time on a CPU, in clock ticks.
    pub cpu_ticks: u64,
    pub threads: u64,
    /// Clock ticks since boot.
    pub start_time: u64,
    pub rss_pages: u64,
}

impl Stat {
    pub fn of(roots: &Roots, pid: i32) -> Result<Self> {
        Self::read(&roots.process_file(pid, "stat"), pid)
    }

    pub(crate) fn read(path: &Path, pid: i32) -> Result<Self> {
        const STAT_BYTES_MAX: u64 = 4096;
        let bytes =
            text::read_bytes(path, STAT_BYTES_MAX).map_err(|error| Error::process("read", pid, error))?;
        let line = String::from_utf8_lossy(&bytes);
        Self::parse(&line).ok_or_else(|| Error::Malformed { path: path.to_owned(), found: line.into_owned() })
    }

    /// The name stands in parentheses and may have blanks and parentheses in it: the last one closes it.
    fn parse(line: &str) -> Option<Self> {
        let (pid, rest) = line.split_once(" (")?;
        let (comm, rest) = rest.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // proc(5) counts from 1, and the first field here is its third.
        let field = |number: usize| fields.get(number - 3).copied();
        let number = |at: usize| field(at)?.parse::<u64>().ok();
        Some(Self {
            pid: pid.parse().ok()?,
            comm: comm.to_owned(),
            state: field(3)?.chars().next()?,
            ppid: field(4)?.parse().ok()?,
            session: field(6)?.parse().ok()?,
            cpu_ticks: number(14)?.saturating_add(number(15)?),
            threads: number(20)?,
            start_time: number(22)?,
            rss_pages: number(24)?,
        })
    }

    pub const fn identity(&self) -> Identity {
        Identity { pid: self.pid, start_time: self.start_time }
    }

    /// A zombie or on its way out: it has exited and only waits to be reaped.
    pub const fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }

    /// Resident memory in bytes, shared pages counted in full. The kernel keeps this figure only roughly (to about
    /// 64 pages for each thread).
    pub fn rss_bytes(&self) -> u64 {
        self.rss_pages.saturating_mul(u64::try_from(rustix::param::page_size()).unwrap_or(4096))
    }

    /// User and system time of the whole process, reaped children not included.
    pub fn cpu_time(&self) -> Duration {
        ticks(self.cpu_ticks)
    }

    /// How long it has been running, by the clock that goes on during suspend.
    pub fn age(&self, roots: &Roots) -> Result<Duration> {
        Ok(uptime(roots)?.saturating_sub(ticks(self.start_time)))
    }
}

fn ticks(count: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    let nanos = (count % per_second).saturating_mul(1_000_000_000) / per_second;
    Duration::from_secs(count / per_second) + Duration::from_nanos(nanos)
}

/// Time since boot.
pub fn uptime(roots: &Roots) -> Result<Duration> {
    let path = roots.proc.join("uptime");
    let line = text::read(&path)?;
    let seconds = line.split_ascii_whitespace().next().and_then(|field| field.parse::<f64>().ok());
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or(Error::Malformed { path, found: line })
}

/// Sends a signal to exactly this process; [`Error::Gone`] when it has ended, also when its pid is in use again.
///
/// The pidfd pins the process before its start time is compared. Before Linux 5.3 there is none: the comparison comes
/// right before the signal, and a process that ends in between and has its pid taken within microseconds is the one
/// case that is not excluded.
pub fn signal(roots: &Roots, target: Identity, signal: Signal) -> Result<()> {
    let pid = existing(target.pid)?;
    let pidfd = pin(pid)?;
    if Identity::of(roots, target.pid)? != target {
        return Err(Error::Gone { pid: target.pid });
    }
    let sent = match &pidfd {
        Some(pidfd) => pidfd_send_signal(pidfd, signal),
        None => kill_process(pid, signal),
    };
    sent.map_err(|error| Error::process("signal", target.pid, error))
}

/// A pid that may belong to a process. 0 and negative ones mean something else to the kernel: groups, everybody.
pub(crate) fn existing(pid: i32) -> Result<Pid> {
    let positive = if pid > 0 { Pid::from_raw(pid) } else { None };
    positive.ok_or(Error::Gone { pid })
}

fn pin(pid: Pid) -> Result<Option<OwnedFd>> {
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Some(pidfd)),
        // An old kernel or a seccomp filter that does not know the call; or no descriptor to spare, and then the signal
        // matters more than the last bit of certainty.
        Err(Errno::NOSYS | Errno::PERM | Errno::MFILE | Errno::NFILE | Errno::NOMEM) => Ok(None),
        Err(error) => Err(Error::process("open a pidfd of", pid.as_raw_nonzero().get(), error)),
    }
}

/// All processes that can be read, in no order. Those that end while the list is read are left out.
pub fn all(roots: &Roots) -> Result<impl Iterator<Item = Stat>> {
    let roots = roots.clone();
    Ok(pids(&roots)?.filter_map(move |pid| Stat::of(&roots, pid).ok()))
}

pub(crate) fn pids(roots: &Roots) -> Result<impl Iterator<Item = i32> + use<>> {
    let entries = fs::read_dir(&roots.proc).map_err(|error| Error::file("list", &roots.proc, error))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

/// All processes below `root` by parentage, without itself, parents first. A process that daemonized is a child of the
/// reaper by now and not among them: [`environ_has`], the session and the cgroup find those.
pub fn descendants(roots: &Roots, root: i32) -> Result<Vec<Stat>> {
    let mut rest: Vec<Stat> = all(roots)?.collect();
    let mut found: Vec<Stat> = Vec::new();
    let mut parents = vec![root];
    while !parents.is_empty() && !rest.is_empty() {
        let (below, others): (Vec<Stat>, Vec<Stat>) =
            rest.into_iter().partition(|stat| parents.contains(&stat.ppid) && stat.pid != root);
        parents = below.iter().map(|stat| stat.pid).collect();
        found.extend(below);
        rest = others;
    }
    Ok(found)
}

pub(crate) fn read_of_process(path: &Path, pid: i32) -> Result<String> {
    const FILE_BYTES_MAX: u64 = 1 << 20;
    let bytes = text::read_bytes(path, FILE_BYTES_MAX).map_err(|error| Error::process("read", pid, error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(crate) fn list_of_process(roots: &Roots, pid: i32, name: &str) -> Result<fs::ReadDir> {
    fs::read_dir(roots.process_file(pid, name)).map_err(|error: io::Error| Error::process("list", pid, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> i32 {
        std::process::id().cast_signed()
    }

    #[test]
    fn a_name_with_blanks_and_parentheses_is_one_field() {
        let line = "42 (a) b (c)) S 7 42 43 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 3 0 9999 1000 17 18446744073709551615\n";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(stat.comm, "a) b (c)");
        assert_eq!((stat.pid, stat.ppid, stat.session, stat.state), (42, 7, 43, 'S'));
        assert_eq!((stat.cpu_ticks, stat.threads, stat.start_time, stat.rss_pages), (11, 3, 9999, 17));
        assert_eq!(stat.identity(), Identity { pid: 42, start_time: 9999 });
    }

    #[test]
    fn a_cut_line_is_not_understood() {
        assert_eq!(Stat::parse("42 (node) S 7 42"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn we_find_ourselves() {
        let roots = Roots::default();
        let us = Stat::of(&roots, own()).unwrap();
        assert!(us.rss_bytes() > 0);
        assert!(us.identity().is_alive(&roots));
        assert!(all(&roots).unwrap().any(|stat| stat.identity() == us.identity()));
        assert_eq!(exe(&roots, own()).unwrap(), std::env::current_exe().unwrap());
        assert_eq!(cmdline(&roots, own()).unwrap()[0], std::env::args().next().unwrap());
        assert_eq!(uid_of(&roots, own()).unwrap(), rustix::process::getuid().as_raw());
        assert!(us.age(&roots).unwrap() < Duration::from_hours(24));
    }

    #[test]
    fn a_pid_with_another_start_time_gets_no_signal() {
        let roots = Roots::default();
        let mut reused = Identity::of(&roots, own()).unwrap();
        reused.start_time -= 1;
        // SIGKILL to ourselves, were it not for the check.
        assert!(matches!(signal(&roots, reused, Signal::KILL), Err(Error::Gone { .. })));
        assert!(!reused.is_alive(&roots));
    }

    #[test]
    fn a_pid_that_nobody_has_is_gone() {
        let nobody = Identity { pid: i32::MAX, start_time: 1 };
        assert!(signal(&Roots::default(), nobody, Signal::TERM).unwrap_err().is_gone());
    }
}
