//! What the contract tests share: a place for groups that is cleaned up, children, and waiting with a deadline.
#![allow(dead_code, reason = "every test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "these are tests, also outside of #[test]")]

pub(crate) mod roles;

use std::ffi::OsString;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use plimsoll_kernel::cgroup::{Discovery, Group, Hierarchy, Limits, Version, discover};
use plimsoll_kernel::process::{self, Identity};
use plimsoll_kernel::spawn::{Child, Command, spawn};
use plimsoll_kernel::{Exit, Roots, reap_one};

pub(crate) const MIB: u64 = 1 << 20;

/// Long enough for a machine that is busy with other builds, and for an emulated one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for a condition, with a deadline and never for a fixed time.
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// A hierarchy of this test's own. Everything in it is killed and removed at the end, also of a test that failed.
pub(crate) struct Place {
    pub(crate) hierarchy: Hierarchy,
    pub(crate) scope: String,
}

impl Place {
    /// `Err` says why this host has no place for groups.
    pub(crate) fn find() -> Result<Self, String> {
        Self::find_in(&Roots::default())
    }

    pub(crate) fn find_in(roots: &Roots) -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let scope = format!("test-{}-{number}", std::process::id());
        let Discovery { chosen, refusals } = discover(roots, &scope);
        let reasons = || refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        chosen.map(|hierarchy| Self { hierarchy, scope }).ok_or_else(reasons)
    }

    /// `None`, said aloud, on a host with another version; `PLIMSOLL_REQUIRE=v1` or `=v2` makes that a failure.
    pub(crate) fn of(version: Version) -> Option<Self> {
        const REQUIRE: &str = "PLIMSOLL_REQUIRE";
        let why_not = match Self::find() {
            Ok(place) if place.hierarchy.facts().version == version => return Some(place),
            Ok(place) => format!("this host has {}", place.hierarchy.facts().version.name()),
            Err(reasons) => reasons,
        };
        let name = version.name();
        let required = std::env::var(REQUIRE).is_ok_and(|wanted| name == format!("cgroup-{wanted}"));
        assert!(!required, "{name} is required: {why_not}");
        println!("not run, since it needs {name}: {why_not}");
        None
    }

    pub(crate) fn group(&self, name: &str, limits: &Limits) -> Group {
        self.hierarchy.create(name, limits).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for name in self.hierarchy.existing().unwrap_or_default() {
            if let Ok(group) = self.hierarchy.open(&name) {
                let _ = group.kill_all(PATIENCE);
                let _ = group.remove(PATIENCE);
            }
        }
        self.hierarchy.remove_if_empty();
    }
}

pub(crate) fn walled(mib: u64) -> Limits {
    Limits { wall_bytes: mib * MIB, tasks_max: None, group_kill: true }
}

/// A child and what it prints. Killed and reaped at the end.
pub(crate) struct Started {
    pub(crate) child: Child,
    output: std::io::PipeReader,
    printed: String,
    exit: Option<Exit>,
}

impl Started {
    pub(crate) fn pid(&self) -> i32 {
        self.child.identity.pid
    }

    pub(crate) fn identity(&self) -> Identity {
        self.child.identity
    }

    /// Reads until the text has come out. The child's end of the pipe closes when it dies, which ends the waiting.
    #[track_caller]
    pub(crate) fn prints(&mut self, text: &str) -> &str {
        let mut chunk = [0; 4096];
        while !self.printed.contains(text) {
            let length = self.output.read(&mut chunk).unwrap();
            assert!(length > 0, "ended without printing {text:?}, but: {}", self.printed);
            self.printed.push_str(&String::from_utf8_lossy(&chunk[..length]));
        }
        &self.printed
    }

    /// All that it prints before it and all its children have closed the output.
    pub(crate) fn prints_all(&mut self) -> &str {
        self.output.read_to_string(&mut self.printed).unwrap();
        &self.printed
    }

    #[track_caller]
    pub(crate) fn exits(&mut self) -> Exit {
        until("the child to exit", || self.has_exited());
        self.exit.unwrap()
    }

    pub(crate) fn has_exited(&mut self) -> bool {
        self.exit = self.exit.or_else(|| reap_one(self.child.identity.pid));
        self.exit.is_some()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let roots = Roots::default();
        // Its session is its own, and with it whatever it has started and goes on starting until the last one is dead.
        until("the child's session to end", || {
            let alive = |stat: &process::Stat| stat.session == self.child.identity.pid && !stat.has_ended();
            let found: Vec<_> = process::all(&roots).unwrap().filter(alive).collect();
            for stat in &found {
                let _ = process::signal(&roots, stat.identity(), rustix::process::Signal::KILL);
            }
            found.is_empty()
        });
        until("a killed child to exit", || self.has_exited());
    }
}

/// A command with this process's PATH and a pipe for its output.
pub(crate) fn command(argv: &[&str]) -> (Command, std::io::PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    let env = std::env::var_os("PATH").map(|path| (OsString::from("PATH"), path)).into_iter().collect();
    let argv = argv.iter().map(OsString::from).collect();
    (Command::new(argv, env, PathBuf::from("/"), OwnedFd::from(writer)), reader)
}

#[track_caller]
pub(crate) fn start_with(group: Option<&Group>, argv: &[&str], change: impl FnOnce(&mut Command)) -> Started {
    let (mut command, output) = command(argv);
    if let Some(group) = group {
        command.join = group.membership().unwrap();
    }
    change(&mut command);
    let child = spawn(&command).unwrap_or_else(|error| panic!("{error}"));
    Started { child, output, printed: String::new(), exit: None }
}

#[track_caller]
pub(crate) fn start(group: Option<&Group>, argv: &[&str]) -> Started {
    start_with(group, argv, |_| {})
}

#[track_caller]
pub(crate) fn shell(group: Option<&Group>, script: &str) -> Started {
    start(group, &["sh", "-c", script])
}

/// This test binary again, in one of its [`roles`].
#[track_caller]
pub(crate) fn role(group: Option<&Group>, role: &str) -> Started {
    role_with(group, role, |_| {})
}

#[track_caller]
pub(crate) fn role_with(group: Option<&Group>, role: &str, change: impl FnOnce(&mut Command)) -> Started {
    let exe = std::env::current_exe().unwrap();
    let argv = [exe.to_str().unwrap(), "--exact", "common::roles::plays_the_role_it_is_given", "--nocapture"];
    start_with(group, &argv, |command| {
        command.env.push((roles::VARIABLE.into(), role.into()));
        change(command);
    })
}

/// The shell words that start this test binary in a role.
pub(crate) fn role_in_shell(role: &str) -> String {
    let exe = std::env::current_exe().unwrap();
    let test = "--exact common::roles::plays_the_role_it_is_given --nocapture";
    format!("{}='{role}' '{}' {test}", roles::VARIABLE, exe.display())
}
