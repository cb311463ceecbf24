//! Debian's packages, as root or with a sudo that asks for no password.

use std::process::Command;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::shell;

const LIMIT: Duration = Duration::from_mins(10);

/// Why nothing can be installed here, if so.
pub(crate) fn refused() -> Option<&'static str> {
    if !shell::has("apt-get") {
        return Some("there is no apt-get");
    }
    let allowed = is_root() || shell::succeeds(Command::new("sudo").args(["-n", "true"]));
    (!allowed).then_some("installing needs root, or sudo without a password")
}

pub(crate) fn update() -> Result<()> {
    match refused() {
        Some(why) => Err(Error::Lacks(format!("fresh package lists, and {why}"))),
        None => shell::run(apt_get().arg("update"), LIMIT),
    }
}

pub(crate) fn install(packages: &[&str]) -> Result<()> {
    shell::run(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(packages), LIMIT)
}

fn apt_get() -> Command {
    let mut command = Command::new(if is_root() { "env" } else { "sudo" });
    if !is_root() {
        command.args(["-n", "env"]);
    }
    // Another apt, such as unattended upgrades on a machine just started, is waited for.
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"]);
    command
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
