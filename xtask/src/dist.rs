//! `cargo xtask dist`: the static binary, and the archive that is released.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::guided;
use crate::shell;
use crate::workspace::{MUSL, Workspace};

const PACKAGE: &str = "plimsoll";

/// Fat LTO over one codegen unit takes its time on a small machine.
const BUILD_LIMIT: Duration = Duration::from_mins(45);

/// Copies of up to so many times 16 bytes are done in line: a call of musl's `memcpy` costs more than such a copy, and a
/// request makes eighty of them (ADR 17). With link-time optimisation the last step compiles everything, so that it is
/// enough to say it there.
const COPIES_IN_LINE: &str = "llvm-args=-max-store-memcpy=24";

/// What goes beside the binary; those that must be there.
const DOCUMENTS: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"];

/// The shells that `plimsoll completions` knows.
const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

const SMOKE_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Without a training: in half the time, and a sixth slower under load
    #[arg(long)]
    plain: bool,
}

/// Builds what is released.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let binary = if args.plain { build(workspace) } else { guided::build(workspace) }?;
    smoke(workspace, &binary)?;
    release(workspace, &binary)
}

fn release(workspace: &Workspace, binary: &Path) -> Result<()> {
    let version = workspace.package(PACKAGE).map_or("0", |package| package.version.as_str());
    let archive = pack(workspace, binary, version)?;
    for path in [binary, &archive] {
        println!("{}  {}  {}", sha256(path)?, mebibytes(path)?, path.display());
    }
    Ok(())
}

/// Runs a binary where there is nothing else: no libc, no /proc, no shell.
pub(crate) fn smoke(workspace: &Workspace, binary: &Path) -> Result<()> {
    let root = workspace.target.join("dist/empty-root");
    empty(&root)?;
    copy(binary, &root.join(PACKAGE))?;
    for args in [["--version"], ["--help"]] {
        let mut command = in_chroot(&root)?;
        command.arg(format!("/{PACKAGE}")).args(args);
        println!("$ {}", shell::show(&command));
        let mut said = false;
        shell::run_reading(&mut command, SMOKE_LIMIT, &mut |line| said |= !line.is_empty())?;
        if !said {
            return Err(Error::Check(format!("`{PACKAGE} {}` said nothing in an empty root", args.concat())));
        }
    }
    fs::remove_dir_all(&root).map_err(Error::file("remove", &root))
}

/// The static binary, optimised as a whole.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    binary(workspace, &workspace.target, None)
}

/// The same, by this option of the compiler for every crate, into a target folder of its own.
pub(crate) fn build_by(workspace: &Workspace, target: &Path, option: &str) -> Result<PathBuf> {
    binary(workspace, target, Some(option))
}

/// An example of a package, built as the binary is.
pub(crate) fn build_example_by(
    workspace: &Workspace,
    (package, name): (&str, &str),
    target: &Path,
    option: &str,
) -> Result<PathBuf> {
    let folder = compile(workspace, target, Some(option), &["--package", package, "--example", name])?;
    Ok(folder.join("examples").join(name))
}

fn binary(workspace: &Workspace, target: &Path, option: Option<&str>) -> Result<PathBuf> {
    let what = ["--package", PACKAGE, "--bin", PACKAGE];
    let binary = compile(workspace, target, option, &what)?.join(PACKAGE);
    check_static(&binary)?;
    Ok(binary)
}

pub(crate) fn check_static(binary: &Path) -> Result<()> {
    let bytes = fs::read(binary).map_err(Error::file("read", binary))?;
    match asks_for_a_loader(&bytes) {
        Some(false) => Ok(()),
        Some(true) => Err(Error::Check(format!("{} is not static: it asks for a loader", binary.display()))),
        None => Err(Error::Check(format!("{} is no 64-bit little-endian ELF file", binary.display()))),
    }
}

/// The folder that what was built is in.
fn compile(workspace: &Workspace, target: &Path, option: Option<&str>, what: &[&str]) -> Result<PathBuf> {
    if let Some(missing) = ["musl-gcc", "make"].into_iter().find(|program| !shell::has(program)) {
        return Err(Error::Lacks(format!("{missing}; `cargo xtask test` installs it")));
    }
    let mut command = workspace.cargo(&["rustc", "--profile", "dist", "--target", MUSL]);
    command.arg("--target-dir").arg(target).args(what).args(["--", "-C", COPIES_IN_LINE]);
    command.env("CC_x86_64_unknown_linux_musl", "musl-gcc");
    command.envs(option.map(|option| ("RUSTFLAGS", option)));
    shell::run(&mut command, BUILD_LIMIT)?;
    Ok(target.join(MUSL).join("dist"))
}

/// Does the ELF file have a program header `PT_INTERP`? `None` if it is no such file.
fn asks_for_a_loader(elf: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    let half = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?));
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    // The fields of the file header: where the program headers begin, how large one is, how many there are.
    let begin = usize::try_from(u64::from_le_bytes(elf.get(32..40)?.try_into().ok()?)).ok()?;
    let (size, count) = (usize::from(half(54)?), usize::from(half(56)?));
    for index in 0..count {
        if word(begin + index * size)? == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}

fn pack(workspace: &Workspace, binary: &Path, version: &str) -> Result<PathBuf> {
    let dist = workspace.target.join("dist");
    let name = format!("{PACKAGE}-{version}-x86_64-linux-musl");
    let folder = dist.join(&name);
    empty(&folder)?;
    copy(binary, &folder.join(PACKAGE))?;
    for document in DOCUMENTS {
        copy(&workspace.root.join(document), &folder.join(document))?;
    }
    write_completions(binary, &folder.join("completions"))?;
    let archive = dist.join(format!("{name}.tar.gz"));
    // The same input gives the same bytes, whoever packs it and when.
    let mut tar = Command::new("tar");
    tar.args([
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mtime=@0",
        "--use-compress-program=gzip -9n",
    ]);
    tar.arg("--create").arg("--file").arg(&archive).arg("--directory").arg(&dist).arg(&name);
    shell::output(&mut tar)?;
    fs::remove_dir_all(&folder).map_err(Error::file("remove", &folder))?;
    Ok(archive)
}

fn write_completions(binary: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::file("make", folder))?;
    for name in SHELLS {
        let script = shell::output(Command::new(binary).args(["completions", name]))?;
        let path = folder.join(format!("{PACKAGE}.{name}"));
        fs::write(&path, script).map_err(Error::file("write", &path))?;
    }
    Ok(())
}

fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(Error::file("remove", folder))?;
    }
    fs::create_dir_all(folder).map_err(Error::file("make", folder))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).map_err(Error::file("copy", from))
}

/// `chroot` as root, in a user namespace of our own, or by sudo: whichever is allowed here.
fn in_chroot(root: &Path) -> Result<Command> {
    let ways: [&[&str]; 3] =
        [&["chroot"], &["unshare", "--map-root-user", "chroot"], &["sudo", "-n", "chroot"]];
    let allowed = |way: &&[&str]| match way {
        ["chroot"] => rustix::process::geteuid().is_root(),
        [program, option, ..] => shell::succeeds(Command::new(program).args([option, "true"])),
        _ => false,
    };
    let way = ways.into_iter().find(|way| allowed(way));
    let way = way.ok_or_else(|| Error::Lacks("a way to chroot: root, user namespaces or sudo".into()))?;
    let mut command = Command::new(way[0]);
    command.args(&way[1..]).arg(root);
    Ok(command)
}

pub(crate) fn sha256(path: &Path) -> Result<String> {
    let output = shell::output(Command::new("sha256sum").arg(path))?;
    Ok(output.split_whitespace().next().unwrap_or_default().to_owned())
}

fn mebibytes(path: &Path) -> Result<String> {
    let bytes = fs::metadata(path).map_err(Error::file("look at", path))?.len();
    // Hundredths, rounded down: exact enough to watch a binary grow.
    let hundredths = bytes * 100 / (1 << 20);
    Ok(format!("{}.{:02} MiB", hundredths / 100, hundredths % 100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_asks_for_a_loader_and_text_is_no_program() {
        // The test binary itself is built for the host, dynamically, unless the target is musl.
        let ourselves = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(asks_for_a_loader(&ourselves), Some(cfg!(not(target_env = "musl"))));
        assert_eq!(asks_for_a_loader(b"#!/bin/sh"), None);
        assert_eq!(asks_for_a_loader(&ourselves[..60]), None);
    }

    #[test]
    fn a_program_without_the_header_is_static() {
        let mut elf = fs::read(std::env::current_exe().unwrap()).unwrap();
        let begin = usize::try_from(u64::from_le_bytes(elf[32..40].try_into().unwrap())).unwrap();
        let (size, count) = (usize::from(elf[54]), usize::from(elf[56]));
        for index in 0..count {
            elf[begin + index * size] = 1;
        }
        assert_eq!(asks_for_a_loader(&elf), Some(false));
    }
}
