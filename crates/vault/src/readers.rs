//! Who else reads the database: SQLite's marks in the log are locks on bytes of the file beside it, and the kernel says
//! who holds those.

use std::fs;

use crate::database::{Database, FileId, file_id};

/// Bytes of the `-shm` file that stand for the marks of readers, from <https://sqlite.org/walformat.html#locks>.
const MARKS: std::ops::RangeInclusive<u64> = 123..=127;

/// Processes other than this one that stand in the log now: `pid 7 (node)`, as far as the kernel tells.
pub(crate) fn others(database: &Database) -> Vec<String> {
    let Ok(shared) = file_id(&database.beside("-shm")) else { return Vec::new() };
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let others = holders(&locks, shared).into_iter().filter(|pid| *pid != std::process::id());
    others.map(in_words).collect()
}

fn in_words(pid: u32) -> String {
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("pid {pid} ({})", name.trim()),
        Err(_) => format!("pid {pid}"),
    }
}

/// `1: POSIX  ADVISORY  READ 7 fe:00:1234 124 124`, a lock a line; who waits for one has an arrow.
fn holders(locks: &str, shared: FileId) -> Vec<u32> {
    let mut pids: Vec<u32> = locks.lines().filter_map(|line| holder(line, shared)).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn holder(line: &str, shared: FileId) -> Option<u32> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, "POSIX", _, "READ", pid, file, first, last] = fields[..] else { return None };
    let mut parts = file.split(':');
    let (major, minor) = (parts.next()?, parts.next()?);
    let number = |text| u32::from_str_radix(text, 16).ok();
    let device = rustix::fs::makedev(number(major)?, number(minor)?);
    let inode: u64 = parts.next()?.parse().ok()?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let is_mark = first <= *MARKS.end() && *MARKS.start() <= last;
    (is_mark && shared == FileId { device, inode }).then(|| pid.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_hold_a_mark_are_found_and_nobody_else() {
        let locks = "\
1: POSIX  ADVISORY  READ 30 fe:00:1234 124 124
2: POSIX  ADVISORY  READ 7 fe:00:1234 123 127
3: POSIX  ADVISORY  READ 8 fe:00:1234 128 128
4: POSIX  ADVISORY  WRITE 9 fe:00:1234 120 120
5: POSIX  ADVISORY  READ 10 fe:01:1234 124 124
6: FLOCK  ADVISORY  WRITE 11 fe:00:1234 0 EOF
7: POSIX  ADVISORY  READ 30 fe:00:1234 125 125
7: -> POSIX  ADVISORY  READ 12 fe:00:1234 124 124
";
        let shared = FileId { device: rustix::fs::makedev(0xfe, 0), inode: 1234 };
        assert_eq!(holders(locks, shared), [7, 30]);
        assert!(holders("1: POSIX x READ\n\n", shared).is_empty());
    }
}
