//! A systemd for the machine: the host's own, with the libraries that it asks for, and as few units as it can do with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::shell;

const PROGRAMS: [&str; 3] =
    ["/usr/lib/systemd/systemd", "/usr/lib/systemd/systemd-shutdown", "/usr/bin/systemctl"];
/// From version 254 on services are started by it.
const EXECUTOR: &str = "/usr/lib/systemd/systemd-executor";

/// What every unit takes for granted.
const TARGETS: [&str; 12] = [
    "basic", "final", "local-fs", "network", "paths", "poweroff", "shutdown", "slices", "sockets", "sysinit",
    "timers", "umount",
];

/// The suites of tests that want it, run as a service, and then the end of the machine.
const SUITES: &str = "\
[Unit]
Description=The suites under systemd
After=basic.target

[Service]
Type=oneshot
ExecStart=/bin/sh /suites.sh systemd
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
TimeoutStartSec=infinity
";

const DEFAULT_TARGET: &str = "\
[Unit]
Description=All there is to do
Requires=basic.target
Wants=suites.service
After=basic.target
AllowIsolate=yes
";

/// Puts it into the machine's tree.
pub(super) fn install(root: &Path) -> Result<()> {
    let programs = PROGRAMS.into_iter().chain(Path::new(EXECUTOR).exists().then_some(EXECUTOR));
    for program in programs {
        if !Path::new(program).exists() {
            return Err(Error::Lacks(format!("{program}; `cargo xtask test` installs systemd")));
        }
        copy(Path::new(program), root)?;
        for library in libraries(program)? {
            copy(&library, root)?;
        }
    }
    let units = root.join("etc/systemd/system");
    fs::create_dir_all(&units).map_err(Error::file("make", &units))?;
    for target in TARGETS {
        let text = format!("[Unit]\nDescription={target}\nDefaultDependencies=no\n");
        write(&units.join(format!("{target}.target")), &text)?;
    }
    write(&units.join("suites.service"), SUITES)?;
    write(&units.join("default.target"), DEFAULT_TARGET)?;
    write(&root.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n")?;
    write(&root.join("etc/os-release"), "ID=plimsoll-vm\nNAME=\"The test machine\"\n")
}

/// What the loader would load, with the loader itself.
fn libraries(program: &str) -> Result<Vec<PathBuf>> {
    let listed = shell::output(Command::new("ldd").arg(program))?;
    Ok(listed.lines().filter_map(library).collect())
}

/// `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`
fn library(line: &str) -> Option<PathBuf> {
    line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from)
}

/// To the same place, links resolved.
fn copy(from: &Path, root: &Path) -> Result<()> {
    let to = root.join(from.strip_prefix("/").unwrap_or(from));
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(Error::file("make", folder))?;
    }
    fs::copy(from, &to).map_err(Error::file("copy", from))?;
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(Error::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_the_loaders_list() {
        let lib = |line: &str| library(line).map(|path| path.display().to_string());
        let libc = "\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1)";
        assert_eq!(lib(libc).as_deref(), Some("/lib/x86_64-linux-gnu/libc.so.6"));
        assert_eq!(
            lib("\t/lib64/ld-linux-x86-64.so.2 (0x00007f2)").as_deref(),
            Some("/lib64/ld-linux-x86-64.so.2")
        );
        assert_eq!(lib("\tlinux-vdso.so.1 (0x00007ffd)"), None);
    }
}
