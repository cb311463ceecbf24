//! What a guard has left behind, which should be nothing.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

/// In the environment of the guard, so in that of everything it starts: its own value for each test.
pub const MARK: &str = "PLIMSOLL_TEST_MARK";

/// Living processes that bear this mark.
pub fn processes(mark: &str) -> Vec<i32> {
    let wanted = format!("{MARK}={mark}");
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let own = i32::try_from(std::process::id()).unwrap();
    pids.filter(|pid| *pid != own && bears(*pid, &wanted) && is_alive(*pid)).collect()
}

fn bears(pid: i32, wanted: &str) -> bool {
    let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environ.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
}

/// There, and more than an entry that nobody has reaped.
pub fn is_alive(pid: i32) -> bool {
    state(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

/// Ended with every thread of its own, so that its memory is given back. A main thread has ended before that.
pub fn is_over(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    !is_alive(pid) && threads <= 1
}

/// The kernel's letter.
pub fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

pub fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// In words, for the message of a test that fails.
pub fn describe(pids: &[i32]) -> String {
    let line = |pid: &i32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        format!("{pid}: {}", String::from_utf8_lossy(&command).replace('\0', " "))
    };
    pids.iter().map(line).collect::<Vec<_>>().join("\n")
}

pub fn kill(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // Gone meanwhile is as good.
        let _ = kill_process(pid, signal);
    }
}

/// Control groups of the guard with this state folder.
pub fn groups(state: &Path) -> Vec<PathBuf> {
    let scope = scope(state);
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = open.pop() {
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let folders = entries.filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir())).map(|it| it.path());
        for folder in folders {
            if folder.file_name().is_some_and(|name| name.to_string_lossy() == scope) {
                found.push(folder.clone());
            }
            open.push(folder);
        }
    }
    found
}

/// As the guard names it: the same in each of its lives.
fn scope(state: &Path) -> String {
    let path = fs::canonicalize(state).unwrap_or_else(|_| state.to_owned());
    let hash = path.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("guard-{hash:016x}")
}
