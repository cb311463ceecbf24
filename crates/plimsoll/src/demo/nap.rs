//! The guard put to sleep for a while, to see what holds without it.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::interval;

const LOOK: Duration = Duration::from_millis(5);
/// The guard is woken after this in any case.
///
/// The kernel first looks for something to reclaim; on a busy disk it was seen to look for more than two seconds.
const NAP_MAX: Duration = Duration::from_secs(10);

/// A stopped guard. It goes on when this is dropped.
#[derive(Debug)]
pub(super) struct Nap {
    guard: Pid,
}

impl Nap {
    /// `guard` is a child of ours that has not been waited for, so the number is its own.
    pub(super) fn of(guard: Pid) -> Self {
        let _ = kill_process(guard, Signal::STOP);
        Self { guard }
    }

    /// Lasts until the process is dead, and says whether it is. Nobody takes its exit while the guard sleeps, so its
    /// number stays its own.
    pub(super) async fn until_dead(self, pid: u64) -> bool {
        let deadline = Instant::now() + NAP_MAX;
        let mut looks = interval(LOOK);
        while !is_dead(pid) && Instant::now() < deadline {
            looks.tick().await;
        }
        is_dead(pid)
    }
}

impl Drop for Nap {
    fn drop(&mut self) {
        let _ = kill_process(self.guard, Signal::CONT);
    }
}

/// Gone, or a zombie. The state stands behind the program's name, which may hold anything but ends with the last `)`.
fn is_dead(pid: u64) -> bool {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    text.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[tokio::test(flavor = "current_thread")]
    async fn a_nap_ends_with_the_death_it_waits_for_and_wakes_the_guard() {
        let sleeper =
            || Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("cat");
        let (mut guard, mut service) = (sleeper(), sleeper());
        let pid = |id: u32| Pid::from_raw(i32::try_from(id).expect("a pid")).expect("not zero");
        let nap = Nap::of(pid(guard.id()));
        assert!(!is_dead(service.id().into()));
        kill_process(pid(service.id()), Signal::KILL).expect("it is ours");
        assert!(nap.until_dead(service.id().into()).await, "a zombie, since nobody waited for it");
        // A guard that still slept would not notice the end of its input.
        drop(guard.stdin.take());
        assert!(guard.wait().expect("it ends").success());
        service.wait().expect("it was killed");
    }
}
