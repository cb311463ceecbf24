//! The machine's only file system.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, Result};
use crate::shell;
use crate::vm::Args;
use crate::vm::suites::{Executable, Suites};
use crate::vm::systemd;

const FOLDERS: [&str; 11] =
    ["bin", "dev", "etc", "proc", "root", "run", "suites", "sys", "tmp", "usr/bin", "var/lib"];

const FILES: [(&str, &str); 3] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
];

/// Lays the tree out under `folder` and packs it; gives the archive's path.
pub(super) fn pack(folder: &Path, busybox: &Path, suites: &Suites, args: &Args) -> Result<PathBuf> {
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).map_err(Error::file("remove", &root))?;
    }
    for name in FOLDERS {
        make_folder(&root.join(name))?;
    }
    for (path, text) in FILES {
        write(&root.join(path), text)?;
    }
    write(&root.join("etc/filter"), args.filter.as_deref().unwrap_or_default())?;
    write(&root.join("etc/keep"), if args.keep { "yes" } else { "" })?;
    write(&root.join("init"), include_str!("init.sh"))?;
    write(&root.join("suites.sh"), include_str!("suites.sh"))?;
    make_executable(&root.join("init"))?;
    copy(busybox, &root.join("bin/busybox"))?;
    if let Some(plimsoll) = &suites.plimsoll {
        copy_stripped(plimsoll, &root.join("bin/plimsoll"))?;
        link_where_built(plimsoll, &root)?;
    }
    for suite in &suites.tests {
        let folder = if suite.wants_systemd() { "suites-systemd" } else { "suites" };
        make_folder(&root.join(folder))?;
        copy_stripped(&suite.path, &root.join(folder).join(&suite.name))?;
    }
    if suites.tests.iter().any(Executable::wants_systemd) {
        systemd::install(&root)?;
    }
    archive(&root, &folder.join("initramfs.cpio"))
}

/// Cargo compiles the binary's path into the tests that call it; it leads to the one copy.
fn link_where_built(built: &Path, root: &Path) -> Result<()> {
    let link = root.join(built.strip_prefix("/").unwrap_or(built));
    make_folder(link.parent().unwrap_or(root))?;
    symlink("/bin/plimsoll", &link).map_err(Error::file("link", &link))
}

fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::file("make", path))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(Error::file("write", path))
}

fn make_executable(path: &Path) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(Error::file("make executable", path))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map_err(Error::file("copy", from))?;
    make_executable(to)
}

/// Debug information is most of a test binary, and all of it would live in the machine's memory.
fn copy_stripped(from: &Path, to: &Path) -> Result<()> {
    shell::output(Command::new("strip").arg("--strip-debug").arg("-o").arg(to).arg(from))?;
    make_executable(to)
}

fn archive(root: &Path, to: &Path) -> Result<PathBuf> {
    let list = root.with_extension("list");
    let names = shell::output(Command::new("find").arg(".").current_dir(root))?;
    write(&list, &names)?;
    let input = File::open(&list).map_err(Error::file("open", &list))?;
    let output = File::create(to).map_err(Error::file("write", to))?;
    let mut command = Command::new("cpio");
    command.args(["--create", "--format=newc", "--owner=0:0", "--quiet"]).current_dir(root);
    let status = command.stdin(input).stdout(output).stderr(Stdio::inherit()).status();
    let status = status.map_err(|source| Error::Start { command: shell::show(&command), source })?;
    if !status.success() {
        return Err(Error::Failed { command: shell::show(&command), status, said: String::new() });
    }
    Ok(to.to_owned())
}
