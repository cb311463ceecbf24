//! What the kernel tells, as records.

use std::collections::{BTreeMap, HashMap};

use plimsoll_kernel::Exit;
use plimsoll_kernel::cgroup::OomCounts;
use plimsoll_kernel::procfs::{DescriptorKind, Rollup, Table, Thread};

use super::{DescriptorRow, DescriptorTable, ExitRecord, OomRecord, ThreadRow};

impl From<Exit> for ExitRecord {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Code(code) => Self { code: Some(code), signal: None, core_dumped: false },
            Exit::Signal { number, core_dumped } => Self { code: None, signal: Some(number), core_dumped },
        }
    }
}

impl From<OomCounts> for OomRecord {
    fn from(counts: OomCounts) -> Self {
        let OomCounts { high, max, oom, oom_kill, oom_group_kill } = counts;
        Self { high, max, oom, oom_kill, oom_group_kill }
    }
}

impl DescriptorTable {
    /// `limit` is the process's `RLIMIT_NOFILE`.
    pub fn new(table: Table, limit: u64) -> Self {
        let kinds = table.kinds.into_iter().map(|it| DescriptorRow {
            kind: word(&it.kind).to_owned(),
            detail: it.kind.to_string(),
            count: count(it.count),
        });
        Self { count: count(table.seen), limit, complete: table.complete, kinds: kinds.collect() }
    }
}

const fn word(kind: &DescriptorKind) -> &'static str {
    match kind {
        DescriptorKind::File { .. } => "file",
        DescriptorKind::Device { .. } => "device",
        DescriptorKind::Tcp { .. } => "tcp",
        DescriptorKind::Udp => "udp",
        DescriptorKind::Unix => "unix",
        DescriptorKind::Socket => "socket",
        DescriptorKind::Pipe => "pipe",
        DescriptorKind::EventFd => "eventfd",
        DescriptorKind::EventPoll => "epoll",
        DescriptorKind::Inotify => "inotify",
        DescriptorKind::TimerFd => "timerfd",
        DescriptorKind::SignalFd => "signalfd",
        DescriptorKind::Memfd => "memfd",
        DescriptorKind::Anon { .. } => "anon",
    }
}

impl ThreadRow {
    /// Threads that do the same become one row; most first, then by id.
    pub fn summed(threads: Vec<Thread>) -> Vec<Self> {
        let mut places = HashMap::new();
        let mut rows: Vec<Self> = Vec::new();
        for thread in threads {
            let place = *places
                .entry((thread.name.clone(), thread.state, thread.wchan.clone()))
                .or_insert(rows.len());
            match rows.get_mut(place) {
                Some(row) => row.count += 1,
                None => rows.push(Self {
                    id: thread.id,
                    name: thread.name,
                    state: thread.state.to_string(),
                    wchan: thread.wchan,
                    count: 1,
                }),
            }
        }
        rows.sort_by(|one, other| other.count.cmp(&one.count).then(one.id.cmp(&other.id)));
        rows
    }
}

/// A rollup as evidence keeps it; every key ends in `_bytes`.
pub fn rollup_rows(rollup: &Rollup) -> BTreeMap<String, u64> {
    let rows = [
        ("rss_bytes", rollup.rss_bytes),
        ("pss_bytes", rollup.pss_bytes),
        ("pss_anon_bytes", rollup.pss_anon_bytes),
        ("pss_file_bytes", rollup.pss_file_bytes),
        ("pss_shmem_bytes", rollup.pss_shmem_bytes),
        ("private_clean_bytes", rollup.private_clean_bytes),
        ("private_dirty_bytes", rollup.private_dirty_bytes),
        ("shared_clean_bytes", rollup.shared_clean_bytes),
        ("shared_dirty_bytes", rollup.shared_dirty_bytes),
        ("anonymous_bytes", rollup.anonymous_bytes),
        ("anon_huge_bytes", rollup.anon_huge_bytes),
        ("swap_bytes", rollup.swap_bytes),
        ("locked_bytes", rollup.locked_bytes),
    ];
    rows.into_iter().map(|(key, bytes)| (key.to_owned(), bytes)).collect()
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn thread(id: i32, name: &str, state: char) -> Thread {
        Thread { id, name: name.to_owned(), state, wchan: None, cpu_time: Duration::ZERO }
    }

    #[test]
    fn threads_that_do_the_same_are_one_row_and_the_most_come_first() {
        let rows =
            ThreadRow::summed(vec![thread(1, "main", 'R'), thread(2, "pool", 'S'), thread(3, "pool", 'S')]);
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].name.as_str(), rows[0].count, rows[0].id), ("pool", 2, 2));
        assert_eq!(rows[1].state, "R");
    }

    #[test]
    fn an_end_by_signal_is_no_end_by_code() {
        let record = ExitRecord::from(Exit::Signal { number: 9, core_dumped: false });
        assert_eq!((record.code, record.signal), (None, Some(9)));
        assert_eq!(ExitRecord::from(Exit::Code(3)).code, Some(3));
    }
}
