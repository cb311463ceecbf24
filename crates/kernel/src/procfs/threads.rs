//! Threads and CPU time.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use crate::process::{Stat, list_of_process};
use crate::{Error, Result, Roots, text};

/// One thread, as evidence of what a process was doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    pub id: i32,
    pub name: String,
    /// `R`, `S`, `D`, …
    pub state: char,
    /// The kernel function that it waits in; `None` when running or when the kernel does not tell.
    pub wchan: Option<String>,
    pub cpu_time: Duration,
}

/// At most `max` threads, the main one first. Threads that end meanwhile are left out.
pub fn threads(roots: &Roots, pid: i32, max: usize) -> Result<Vec<Thread>> {
    let entries = list_of_process(roots, pid, "task")?;
    let mut ids: Vec<i32> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    ids.sort_unstable();
    Ok(ids.into_iter().take(max).filter_map(|id| thread(roots, pid, id)).collect())
}

/// How many threads a process has: the folder of each is a link to their common one, beside its own two. One `stat`.
pub fn thread_count(roots: &Roots, pid: i32) -> Result<u64> {
    let folder = fs::metadata(roots.process_file(pid, "task"))
        .map_err(|error| Error::process("count the threads of", pid, error))?;
    Ok(folder.nlink().saturating_sub(2))
}

fn thread(roots: &Roots, pid: i32, id: i32) -> Option<Thread> {
    let folder = roots.process_file(pid, format!("task/{id}"));
    let stat = Stat::read(&folder.join("stat"), pid).ok()?;
    let wchan = text::read(&folder.join("wchan")).ok().filter(|name| !name.is_empty() && name != "0");
    Some(Thread { id, cpu_time: stat.cpu_time(), state: stat.state, name: stat.comm, wchan })
}

/// User and system time of a process, in steps of a clock tick (10 ms).
pub fn cpu_time(roots: &Roots, pid: i32) -> Result<Duration> {
    Ok(Stat::of(roots, pid)?.cpu_time())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_listed_by_its_name_and_the_list_is_bounded() {
        let own = std::process::id().cast_signed();
        let (stop, wait) = std::sync::mpsc::sync_channel::<()>(0);
        let (ready, started) = std::sync::mpsc::sync_channel(0);
        let work = move || {
            ready.send(()).unwrap();
            let _ = wait.recv();
        };
        let waiting = std::thread::Builder::new().name("waits-here".to_owned()).spawn(work).unwrap();
        started.recv().unwrap();
        let found = threads(&Roots::default(), own, 1000).unwrap();
        assert_eq!(found[0].id, own);
        assert!(found.iter().any(|thread| thread.name == "waits-here"), "{found:?}");
        assert_eq!(threads(&Roots::default(), own, 1).unwrap().len(), 1);
        // Other tests of this process come and go.
        assert!(thread_count(&Roots::default(), own).unwrap().abs_diff(found.len() as u64) < 10);
        drop(stop);
        waiting.join().unwrap();
    }
}
