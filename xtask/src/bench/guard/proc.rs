//! What /proc says about a process, as far as the benches need it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};

/// Set by the kernel at the very beginning of a process's end, long before its memory is given back.
const PF_EXITING: u64 = 4;
/// Places in `/proc/PID/stat`, counted behind the name.
const FLAGS: usize = 6;
const USER_TICKS: usize = 11;
const SYSTEM_TICKS: usize = 12;
const ENDED_CHILDREN_USER_TICKS: usize = 13;
const ENDED_CHILDREN_SYSTEM_TICKS: usize = 14;
/// `USER_HZ`, the same on every Linux that we run on.
const TICKS_PER_SECOND: u64 = 100;

/// A process that has ended or is ending, by whatever signal or exit.
pub(in crate::bench) fn is_ending(pid: u32) -> bool {
    stat_field(pid, FLAGS).is_none_or(|flags| flags & PF_EXITING != 0)
}

/// It has let go of everything: it is no more, or only its exit status is left. A main thread that has ended waits like
/// that for the others, and they may hold sockets open still.
pub(in crate::bench) fn is_gone(pid: u32) -> bool {
    let stat = fs::read_to_string(path(pid, "stat")).unwrap_or_default();
    let has_ended = stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']));
    has_ended && fs::read_dir(path(pid, "task")).map_or(0, Iterator::count) <= 1
}

/// Processor time of all its threads so far.
pub(in crate::bench) fn cpu_time(pid: u32) -> Result<Duration> {
    ticks_in(pid, USER_TICKS, SYSTEM_TICKS)
}

/// Of its children that ended and were waited for.
pub(in crate::bench) fn ended_children_cpu_time(pid: u32) -> Result<Duration> {
    ticks_in(pid, ENDED_CHILDREN_USER_TICKS, ENDED_CHILDREN_SYSTEM_TICKS)
}

fn ticks_in(pid: u32, user: usize, system: usize) -> Result<Duration> {
    let (user, system) = stat_field(pid, user).zip(stat_field(pid, system)).ok_or_else(|| gone(pid))?;
    Ok(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
}

/// Processor time of a process and its descendants so far, to the nanosecond; threads that have ended are left out.
pub(in crate::bench) fn tree_cpu_time(pid: u32) -> Duration {
    tree(pid).into_iter().map(threads_cpu_time).sum()
}

/// A process and its descendants.
pub(in crate::bench) fn tree(pid: u32) -> Vec<u32> {
    let children = children_running(pid, "");
    std::iter::once(pid).chain(children.into_iter().flat_map(tree)).collect()
}

/// By the scheduler's own account of each thread.
pub(in crate::bench) fn threads_cpu_time(pid: u32) -> Duration {
    let threads = fs::read_dir(path(pid, "task")).into_iter().flatten().flatten();
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok());
    stats.filter_map(|stat| stat.split_whitespace().next()?.parse().ok()).map(Duration::from_nanos).sum()
}

fn stat_field(pid: u32, place: usize) -> Option<u64> {
    let stat = fs::read_to_string(path(pid, "stat")).ok()?;
    field(&stat, place)
}

/// The name before the other fields may hold spaces and parentheses.
fn field(stat: &str, place: usize) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(place)?.parse().ok()
}

/// Resident memory in bytes: all of it, and with shared pages counted by share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bench) struct Resident {
    pub(in crate::bench) rss_bytes: u64,
    pub(in crate::bench) pss_bytes: u64,
}

pub(in crate::bench) fn resident(pid: u32) -> Result<Resident> {
    let path = path(pid, "smaps_rollup");
    let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    let bytes = |key| kib(&text, key).map(|kib| kib * 1024).ok_or_else(|| gone(pid));
    Ok(Resident { rss_bytes: bytes("Rss:")?, pss_bytes: bytes("Pss:")? })
}

/// Bytes that it wrote so far, to whatever.
pub(in crate::bench) fn written_bytes(pid: u32) -> Result<u64> {
    let path = path(pid, "io");
    let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    kib(&text, "wchar:").ok_or_else(|| gone(pid))
}

/// The number behind a key at the beginning of a line.
fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Children of any of its threads whose command line has `word` in it. Between fork and exec a child still has its
/// parent's command line, so that one which is found runs its own program.
pub(in crate::bench) fn children_running(pid: u32, word: &str) -> Vec<u32> {
    let threads = fs::read_dir(path(pid, "task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children: Vec<u32> =
        lists.flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>()).collect();
    let runs = |pid: &u32| fs::read(path(*pid, "cmdline")).is_ok_and(|line| has_word(&line, word));
    children.into_iter().filter(runs).collect()
}

fn has_word(command_line: &[u8], word: &str) -> bool {
    command_line.split(|byte| *byte == 0).any(|found| found.ends_with(word.as_bytes()))
}

/// The folder of its memory cgroup, and whether it is one of v1.
pub(in crate::bench) fn memory_group(pid: u32) -> Result<(PathBuf, bool)> {
    let path = path(pid, "cgroup");
    let groups = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    let mounts_path = Path::new("/proc/self/mounts");
    let mounts = fs::read_to_string(mounts_path).map_err(Error::file("read", mounts_path))?;
    group_folder(&groups, &mounts)
        .ok_or_else(|| Error::Lacks("a memory cgroup around the service, to watch it from outside".into()))
}

fn group_folder(groups: &str, mounts: &str) -> Option<(PathBuf, bool)> {
    let below = |kind: &str, option: &str, group: &str| {
        let mut mounted = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mount = mounted.find(|mount| {
            mount.get(2) == Some(&kind)
                && (option.is_empty()
                    || mount.get(3).is_some_and(|all| all.split(',').any(|it| it == option)))
        })?;
        Some(Path::new(mount.get(1)?).join(group.trim_start_matches('/')))
    };
    let v1 = groups.lines().find_map(|line| line.split_once(":memory:"));
    if let Some((_, group)) = v1 {
        return Some((below("cgroup", "memory", group)?, true));
    }
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some((below("cgroup2", "", group)?, false))
}

fn path(pid: u32, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{file}"))
}

fn gone(pid: u32) -> Error {
    Error::Check(format!("process {pid} is gone in the middle of a measurement"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_a_name_with_spaces() {
        let stat = "42 (a b) c) R 7 42 42 0 -1 4194308 1 2 3 4 50 6 7";
        assert_eq!(field(stat, FLAGS), Some(4_194_308));
        assert_eq!(field(stat, USER_TICKS), Some(50));
        assert_eq!(field(stat, SYSTEM_TICKS), Some(6));
    }

    #[test]
    fn this_process_lives_and_pid_0_does_not() {
        assert!(!is_ending(std::process::id()));
        assert!(is_ending(0));
        assert!(resident(std::process::id()).unwrap().pss_bytes > 0);
    }

    #[test]
    fn a_group_is_found_on_hosts_of_both_versions() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let hybrid = group_folder("4:memory:/a/b\n0::/c\n", mounts);
        assert_eq!(hybrid, Some(("/sys/fs/cgroup/memory/a/b".into(), true)));
        let unified = group_folder("0::/c\n", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n");
        assert_eq!(unified, Some(("/sys/fs/cgroup/c".into(), false)));
        assert_eq!(group_folder("0::/c\n", ""), None);
    }

    #[test]
    fn a_command_is_known_by_the_end_of_a_word() {
        assert!(has_word(b"/usr/bin/plimsoll\0sample-service\0--port\0", "sample-service"));
        assert!(has_word(b"node\0/x/server.js\0", "server.js"));
        assert!(!has_word(b"plimsoll\0run\0plimsoll.toml\0", "sample-service"));
    }
}
