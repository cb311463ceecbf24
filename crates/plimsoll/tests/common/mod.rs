//! What the end-to-end tests share: a guard as a user starts it, its events as they come, and a look at what is left
//! when it has ended.
#![allow(dead_code, unreachable_pub, reason = "every test binary uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these are tests, also outside of #[test]"
)]

pub mod config;
pub mod crowd;
pub mod folder;
pub mod guard;
pub mod http;
pub mod leftovers;
pub mod memory_group;
pub mod output;

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Says that a test is not run to its end, and why. Where everything has to run, as in CI, that is a failure.
pub fn not_run(lack: &str) {
    assert!(std::env::var_os("CI").is_none(), "not run, and CI runs everything: {lack}");
    println!("not run: {lack}");
}

/// Says so where it is not.
pub fn is_root(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        not_run(&format!("{what} needs root"));
    }
    root
}

/// The binary under test.
pub const EXE: &str = env!("CARGO_BIN_EXE_plimsoll");
pub const MIB: u64 = 1 << 20;
/// Long enough for a busy machine; a test that passes takes a small part of it.
pub const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Waits for a condition, with a deadline and never for a fixed time.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    until_some(what, || condition().then_some(()));
}

/// The same for something that is there in the end.
#[track_caller]
pub fn until_some<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        std::thread::park_timeout(LOOK_AGAIN);
    }
}

/// Runs `plimsoll ARGS --state STATE` to its end.
pub fn plimsoll(state: &Path, args: &[&str]) -> Output {
    let mut command = plimsoll_command();
    // Behind `--` everything belongs to the guarded command.
    command.arg("--state").arg(state).args(args).output().unwrap()
}

/// The binary, blind to what the developer's own environment says about guards.
pub fn plimsoll_command() -> Command {
    let mut command = Command::new(EXE);
    forget_developer(&mut command);
    command
}

pub fn forget_developer(command: &mut Command) {
    for name in ["PLIMSOLL_CONFIG", "PLIMSOLL_STATE", "PLIMSOLL_SOCKET", "PLIMSOLL_INSTANCE", "NODE_OPTIONS"]
    {
        command.env_remove(name);
    }
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
pub fn assert_exit(output: &Output, code: i32) {
    let (out, err) = (stdout(output), stderr(output));
    assert_eq!(output.status.code(), Some(code), "stdout:\n{out}\nstderr:\n{err}");
}
