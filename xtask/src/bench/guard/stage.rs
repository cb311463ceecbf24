//! One guard for a measurement, in a state folder of its own, started and ended as a user would.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::bench::Setting;
use crate::bench::guard::proc;
use crate::error::{Error, Result};
use crate::shell;

/// Events waiting for us; more are lost, so that the guard never waits for the bench.
const EVENTS_WAITING_MAX: usize = 1 << 16;
/// A thousand services take their time to stop.
const STOP_WITHIN: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(2);

static STAGES: AtomicU32 = AtomicU32::new(0);

#[derive(Debug)]
pub(in crate::bench) struct Stage {
    folder: PathBuf,
    guard: Child,
    events: mpsc::Receiver<Event>,
}

/// What is used of the guard's event records.
#[derive(Debug, Deserialize)]
pub(in crate::bench) struct Event {
    pub(in crate::bench) kind: String,
}

impl Stage {
    /// Starts a guard with this configuration. `{folder}` in it is replaced by a folder for the services.
    pub(in crate::bench) fn start(setting: &Setting<'_>, config: &str) -> Result<Self> {
        Self::launch(setting, Command::new(&setting.plimsoll), config)
    }

    /// The same, by a command that runs the binary with the arguments added to it.
    pub(in crate::bench) fn launch(
        setting: &Setting<'_>,
        mut command: Command,
        config: &str,
    ) -> Result<Self> {
        let number = STAGES.fetch_add(1, Ordering::Relaxed);
        let folder = setting.workspace.target.join(format!("bench/stage-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).map_err(Error::file("make", &folder))?;
        let file = folder.join("plimsoll.toml");
        let config = config.replace("{folder}", &folder.display().to_string());
        fs::write(&file, config).map_err(Error::file("write", &file))?;
        let said = folder.join("stderr");
        let stderr = File::create(&said).map_err(Error::file("create", &said))?;
        command.arg("run").arg(&file).args(["--log", "json", "--state"]).arg(folder.join("state"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut guard =
            command.spawn().map_err(|source| Error::Start { command: shell::show(&command), source })?;
        let (sender, events) = mpsc::sync_channel(EVENTS_WAITING_MAX);
        if let Some(stdout) = guard.stdout.take() {
            thread::spawn(move || forward_events(stdout, &sender));
        }
        Ok(Self { folder, guard, events })
    }

    pub(in crate::bench) fn pid(&self) -> u32 {
        self.guard.id()
    }

    /// The process that decides, and init above it.
    pub(in crate::bench) fn guard_pid(&self) -> u32 {
        proc::children_running(self.pid(), "run-guard").first().copied().unwrap_or(self.pid())
    }

    /// A verb for this guard; its output.
    pub(in crate::bench) fn verb(&self, plimsoll: &Path, args: &[&str]) -> Result<String> {
        shell::output(&mut self.verb_command(plimsoll, args))
    }

    pub(in crate::bench) fn verb_command(&self, plimsoll: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(plimsoll);
        command.args(args).arg("--state").arg(self.folder.join("state"));
        command.arg("--config").arg(self.folder.join("plimsoll.toml"));
        command
    }

    pub(in crate::bench) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(in crate::bench) fn logs(&self) -> PathBuf {
        self.folder.join("state/logs")
    }

    /// The next so many events of this kind; whatever comes between is handed to `meanwhile`.
    pub(in crate::bench) fn wait_for(
        &self,
        kind: &str,
        count: usize,
        within: Duration,
        mut meanwhile: impl FnMut(&Event),
    ) -> Result<()> {
        let deadline = Instant::now() + within;
        let mut seen = 0;
        while seen < count {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).map_err(|_| self.silent(kind, seen, count))?;
            if event.kind == kind {
                seen += 1;
            } else {
                meanwhile(&event);
            }
        }
        Ok(())
    }

    /// The one instance that runs a command with this word, once there is one other than `not`.
    pub(in crate::bench) fn wait_for_process(
        &self,
        word: &str,
        not: Option<u32>,
        within: Duration,
    ) -> Result<u32> {
        let deadline = Instant::now() + within;
        loop {
            let mut found = proc::children_running(self.pid(), word).into_iter();
            if let Some(pid) = found.find(|pid| Some(*pid) != not) {
                return Ok(pid);
            }
            if Instant::now() > deadline {
                return Err(self.silent(word, 0, 1));
            }
            thread::sleep(Duration::from_micros(200));
        }
    }

    fn has_ended(&mut self, within: Duration) -> bool {
        let begun = Instant::now();
        while matches!(self.guard.try_wait(), Ok(None)) {
            if begun.elapsed() > within {
                return false;
            }
            thread::sleep(PAUSE);
        }
        true
    }

    fn silent(&self, what: &str, seen: usize, count: usize) -> Error {
        self.blame(&format!("waited in vain for `{what}`, {seen} of {count} came"))
    }

    /// An error with what the guard printed.
    pub(in crate::bench) fn blame(&self, what: &str) -> Error {
        let said = fs::read_to_string(self.folder.join("stderr")).unwrap_or_default();
        Error::Check(format!("{what}; the guard said:\n{said}"))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        signal(self.guard.id(), Signal::TERM);
        if !self.has_ended(STOP_WITHIN) {
            eprintln!("the guard did not end within {STOP_WITHIN:?} and is killed with its services");
            let services = proc::children_running(self.guard.id(), "");
            for pid in [self.guard.id()].into_iter().chain(services) {
                signal(pid, Signal::KILL);
            }
            let _ended = self.has_ended(STOP_WITHIN);
        }
        // A folder below `target` that stays does no harm.
        let _left = fs::remove_dir_all(&self.folder);
    }
}

/// It may have ended by itself meanwhile.
pub(in crate::bench) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _gone = kill_process(pid, signal);
    }
}

fn forward_events(stdout: ChildStdout, events: &mpsc::SyncSender<Event>) {
    for line in BufReader::new(stdout).lines().map_while(std::io::Result::ok) {
        if let Ok(event) = serde_json::from_str(&line) {
            let _lost = events.try_send(event);
        }
    }
}

/// Bytes of all files below, as their sizes say.
pub(in crate::bench) fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}
