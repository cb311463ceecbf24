//! The guard as a child process, started as a user would and read as a script would.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::unix::pipe;

use super::DemoError;
use super::board::Board;
use super::event::Event;
use super::stage::Stage;

/// For an ordered end: the service's drain and grace, and some more.
const STOP_MAX: Duration = Duration::from_secs(8);
const STOP_LOOK: Duration = Duration::from_millis(10);
/// Told by the environment, these would overrule the folder of the show.
const MISLEADING: [&str; 3] = ["PLIMSOLL_CONFIG", "PLIMSOLL_STATE", "PLIMSOLL_SOCKET"];

/// Ends the guard and all that belongs to the show when it is dropped.
#[derive(Debug)]
pub(super) struct Guard {
    child: Child,
    /// Its path is on the command line of every process of the show.
    mark: String,
}

impl Guard {
    pub(super) fn start(stage: &Stage) -> Result<(Self, pipe::Receiver), DemoError> {
        let complaints = File::create(stage.complaints()).map_err(DemoError::Folder)?;
        let mut command = Command::new(&stage.program);
        // Without init, which would replace a guard that is put to sleep.
        command
            .args(["run", "--alone"])
            .arg(stage.config())
            .arg("--state")
            .arg(stage.state())
            .args(["--log", "json"]);
        for name in MISLEADING {
            command.env_remove(name);
        }
        // A group of its own, so that Ctrl-C reaches only us and the show ends in order.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(complaints);
        let mut child = command.spawn().map_err(DemoError::Guard)?;
        let output = child.stdout.take();
        let guard = Self { child, mark: stage.folder().to_string_lossy().into_owned() };
        let output = output.map(OwnedFd::from).expect("standard output was asked for as a pipe");
        Ok((guard, pipe::Receiver::from_owned_fd(output).map_err(DemoError::Guard)?))
    }

    pub(super) fn pid(&self) -> Pid {
        let raw = i32::try_from(self.child.id()).ok();
        raw.and_then(Pid::from_raw).expect("the kernel's pids are positive and fit")
    }

    /// SIGTERM, then SIGKILL; then whatever is left. Returns what had to be killed: in an orderly end nothing.
    pub(super) fn stop(&mut self) -> usize {
        let mut killed = 0;
        if !self.ends_on(Signal::TERM, STOP_MAX) {
            killed += 1;
            self.ends_on(Signal::KILL, STOP_MAX);
        }
        killed + kill_marked(&self.mark)
    }

    fn ends_on(&mut self, signal: Signal, within: Duration) -> bool {
        // Once waited for, the number may be somebody else's: then nothing is sent.
        if !self.is_running() {
            return true;
        }
        let _ = kill_process(self.pid(), signal);
        let deadline = Instant::now() + within;
        while self.is_running() {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(STOP_LOOK);
        }
        true
    }

    fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Kills every process with the show's own folder on its command line, which nobody else's has.
fn kill_marked(mark: &str) -> usize {
    let own = std::process::id();
    let Ok(entries) = fs::read_dir("/proc") else { return 0 };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let marked = pids.filter(|pid| *pid != own && has_mark(*pid, mark));
    let marked = marked.filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    marked.filter(|pid| kill_process(*pid, Signal::KILL).is_ok()).count()
}

fn has_mark(pid: u32, mark: &str) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.windows(mark.len()).any(|part| part == mark.as_bytes())
}

/// Puts every event on the board until the guard ends.
pub(super) async fn listen(board: Rc<Board>, output: pipe::Receiver) {
    let mut lines = BufReader::new(output).lines();
    // A line that is no text is the end of what we can read, as is a closed pipe.
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(event) = Event::read(&line) {
            board.write(|scene| scene.told(&event, Instant::now()));
        }
    }
    board.write(|scene| scene.guard_ended = true);
}

/// The last lines that the guard printed on standard error.
pub(super) fn complaints(path: &Path) -> String {
    const LINES_MAX: usize = 8;
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES_MAX)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bears_the_mark_is_killed_and_nothing_else() {
        let folder = tempfile::Builder::new().prefix("plimsoll-demo-").tempdir().expect("a folder");
        let mark = folder.path().to_string_lossy().into_owned();
        let sleeper =
            |name: &str| Command::new("sh").args(["-c", "read line", name]).stdin(Stdio::piped()).spawn();
        let (mut ours, mut theirs) = (sleeper(&mark).expect("sh"), sleeper("/tmp/other").expect("sh"));
        // A process that was just started has no words of its own yet for a moment.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let says =
            |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| !words.is_empty());
        while !(says(ours.id()) && says(theirs.id())) {
            assert!(std::time::Instant::now() < until, "they never began");
            std::thread::yield_now();
        }
        assert_eq!(kill_marked(&mark), 1);
        assert!(!ours.wait().expect("it ends").success());
        assert!(theirs.try_wait().expect("it is ours").is_none(), "the other one lives");
        drop(theirs.stdin.take());
        theirs.wait().expect("it ends");
    }
}
