//! Who backs up: the vault under its guard, litestream, `.backup` in a loop, or nobody.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::bench::Setting;
use crate::bench::guard::proc::{self, Resident};
use crate::error::{Error, Result};
use crate::shell;
use crate::workspace::Workspace;

use super::ground::Ground;
use super::writer::python;

const READY_WITHIN: Duration = Duration::from_mins(1);
/// The package's own version; the binary that it carries is litestream 0.3.13.
const LITESTREAM: &str = "@flydotio/litestream@1.0.1";

/// Every second, as fast as SQLite's shell would.
const BACKUPS: &str = r"
import sqlite3, sys, time
while True:
    source, target = sqlite3.connect(sys.argv[1]), sqlite3.connect(sys.argv[2])
    source.backup(target)
    source.close(); target.close()
    time.sleep(1)
";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Nobody,
    Vault,
    Litestream,
    Backups,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Vault => "vault",
            Self::Litestream => "litestream",
            Self::Backups => ".backup",
        }
    }
}

/// The two that are compared.
#[derive(Debug)]
pub(super) struct Tools {
    plimsoll: PathBuf,
    litestream: PathBuf,
}

impl Tools {
    /// The binary as it is released, and what npm carries.
    pub(super) fn ready(setting: &Setting<'_>) -> Result<Self> {
        Ok(Self { plimsoll: setting.plimsoll.clone(), litestream: litestream(setting.workspace)? })
    }

    /// Where nobody is compared.
    pub(super) fn without_peers(setting: &Setting<'_>) -> Self {
        Self { plimsoll: setting.plimsoll.clone(), litestream: PathBuf::new() }
    }
}

#[derive(Debug)]
pub(super) struct Agent {
    kind: Kind,
    child: Option<Child>,
}

/// What it costs the machine so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Footprint {
    pub(super) processor: Duration,
    pub(super) resident_bytes: u64,
    /// The most that was resident at any time.
    pub(super) peak_bytes: u64,
}

impl Agent {
    /// Starts it, and waits until it has a first copy of everything.
    pub(super) fn start(tools: &Tools, kind: Kind, ground: &Ground) -> Result<Self> {
        let mut command = match kind {
            Kind::Nobody => return Ok(Self { kind, child: None }),
            Kind::Vault => vault(tools, ground)?,
            Kind::Litestream => {
                let mut command = Command::new(&tools.litestream);
                command.arg("replicate").arg(ground.database()).arg(replica(ground));
                command
            }
            Kind::Backups => {
                let mut command = python(BACKUPS);
                command.arg(ground.database()).arg(ground.path("backup.db"));
                command
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(Error::file("start", Path::new(kind.name())))?;
        let agent = Self { kind, child: Some(child) };
        agent.wait_ready(ground)?;
        Ok(agent)
    }

    fn wait_ready(&self, ground: &Ground) -> Result<()> {
        let is_ready = || match self.kind {
            Kind::Nobody => true,
            Kind::Vault => holds(&ground.path("store/verified")),
            Kind::Litestream => holds(&ground.path("replica")),
            Kind::Backups => ground.path("backup.db").exists(),
        };
        let began = Instant::now();
        while !is_ready() {
            if began.elapsed() > READY_WITHIN {
                return Err(Error::Check(format!("{} never had a first copy", self.kind.name())));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Of the process that does the work; for the vault that is the guard's, with init's processor time on top.
    pub(super) fn footprint(&self) -> Result<Footprint> {
        let Some(child) = &self.child else { return Ok(Footprint::default()) };
        let guard = self.guard();
        let mut processor = proc::cpu_time(guard.unwrap_or(child.id()))?;
        if guard.is_some() {
            processor += proc::cpu_time(child.id())?;
        }
        let pid = guard.unwrap_or(child.id());
        let Resident { rss_bytes, .. } = proc::resident(pid)?;
        Ok(Footprint { processor, resident_bytes: rss_bytes, peak_bytes: peak_bytes(pid) })
    }

    /// The process that the vault is in: init's child.
    fn guard(&self) -> Option<u32> {
        let child = self.child.as_ref().filter(|_| self.kind == Kind::Vault)?;
        proc::children_running(child.id(), "run-guard").first().copied()
    }

    /// All of it at once; init first, since it would start another guard.
    pub(super) fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let below: Vec<u32> = proc::tree(child.id()).into_iter().skip(1).collect();
        let _ = child.kill();
        for pid in below.into_iter().filter_map(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let _ = child.wait();
    }

    /// Ends it as an operator would.
    pub(super) fn end(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = child.wait();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The most that was ever resident; 0 where the process is gone.
fn peak_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|it| it.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|it| it.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// The guard with one service that does nothing.
fn vault(tools: &Tools, ground: &Ground) -> Result<Command> {
    let config = ground.path("plimsoll.toml");
    let text = format!(
        "[service.idle]\ncommand = [\"sleep\", \"1000000\"]\nport_env = false\n[service.idle.health]\ntcp = false\n\n\
         [[vault]]\ndatabase = \"app.db\"\nto = \"file://{}\"\n",
        ground.path("store").display()
    );
    fs::write(&config, text).map_err(Error::file("write", &config))?;
    let mut command = Command::new(&tools.plimsoll);
    command.arg("run").arg(&config).arg("--state").arg(ground.path("state"));
    Ok(command)
}

/// Restores the newest to `into`; how long that took.
pub(super) fn restore(tools: &Tools, kind: Kind, ground: &Ground, into: &str) -> Result<Duration> {
    ground.clear(into);
    let target = ground.path(into);
    let mut command = match kind {
        Kind::Nobody => return Err(Error::Check("nobody restores nothing".to_owned())),
        Kind::Backups => {
            // With what a copy that was cut off has left beside it: SQLite takes that one back.
            let mut command = Command::new("sh");
            command.arg("-c").arg(
                "for end in '' -journal -wal -shm; do [ ! -e \"$0$end\" ] || cp \"$0$end\" \"$1$end\"; done",
            );
            command.arg(ground.path("backup.db")).arg(&target);
            command
        }
        Kind::Vault => {
            let mut command = verb(tools, ground);
            command.args(["restore", "--into"]).arg(&target);
            command
        }
        Kind::Litestream => {
            let mut command = Command::new(&tools.litestream);
            command.args(["restore", "-o"]).arg(&target).arg(replica(ground));
            command
        }
    };
    let began = Instant::now();
    shell::output(&mut command)?;
    Ok(began.elapsed())
}

/// `plimsoll vault`, of this vault.
fn verb(tools: &Tools, ground: &Ground) -> Command {
    let mut command = Command::new(&tools.plimsoll);
    command.arg("--state").arg(ground.path("state"));
    command.arg("--config").arg(ground.path("plimsoll.toml")).arg("vault");
    command
}

/// Has a running vault take one more snapshot, and waits until it was restored.
pub(super) fn backup_verified(tools: &Tools, ground: &Ground) -> Result<()> {
    let verified = || fs::read_dir(ground.path("store/verified")).into_iter().flatten().count();
    let (before, began) = (verified(), Instant::now());
    // It answers once it has begun.
    while let Err(error) = shell::output(verb(tools, ground).arg("backup")) {
        if began.elapsed() > READY_WITHIN {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    while verified() == before {
        if began.elapsed() > READY_WITHIN {
            return Err(Error::Check("the second snapshot was never verified".to_owned()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn replica(ground: &Ground) -> String {
    format!("file://{}", ground.path("replica").display())
}

/// Is there a file somewhere below?
fn holds(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|it| it.path().is_file() || holds(&it.path()))
}

/// The binary that npm carries, installed where it is missing.
fn litestream(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target.join("tools/litestream");
    let binary = folder.join("node_modules/@flydotio/litestream-linux-x64/litestream");
    if !binary.exists() {
        fs::create_dir_all(&folder).map_err(Error::file("make", &folder))?;
        let mut command = Command::new("npm");
        command.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&folder).arg(LITESTREAM);
        shell::output(&mut command)?;
    }
    Ok(binary)
}
