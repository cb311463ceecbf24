//! The binary as it is released: laid out by what it was seen to do under load (ADR 18).
//!
//! A binary that counts is put to work, and its counts tell the compiler which paths are hot. A training lasts two
//! minutes, a build some more; both are done again only when the sources have changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench;
use crate::dist;
use crate::error::{Error, Result};
use crate::shell;
use crate::workspace::Workspace;

pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    let build = |target: &Path, option: &str| dist::build_by(workspace, target, option);
    trained(&workspace.target.join("guided"), build, |counting| bench::train(workspace, counting))
}

/// An example of a package, in the same way.
pub(crate) fn build_example(
    workspace: &Workspace,
    package: &str,
    name: &str,
    train: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let build =
        |target: &Path, option: &str| dist::build_example_by(workspace, (package, name), target, option);
    trained(&workspace.target.join(format!("guided-{name}")), build, train)
}

fn trained(
    folder: &Path,
    build: impl Fn(&Path, &str) -> Result<PathBuf>,
    train: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let merger = merger()?;
    let counts = folder.join("counts");
    let counting = build(&folder.join("counting"), &format!("-Cprofile-generate={}", counts.display()))?;
    // By its name the compiler knows that it is another one.
    let of = dist::sha256(&counting)?;
    let profile = folder.join(format!("{}.profdata", of.get(..16).unwrap_or(&of)));
    if !profile.exists() {
        if counts.exists() {
            fs::remove_dir_all(&counts).map_err(Error::file("remove", &counts))?;
        }
        train(&counting)?;
        forget_profiles(folder)?;
        merge(&merger, &counts, &profile)?;
    }
    build(&folder.join("guided"), &format!("-Cprofile-use={}", profile.display()))
}

/// Those of earlier sources.
fn forget_profiles(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::file("read", folder))?.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|it| it == "profdata") {
            fs::remove_file(&path).map_err(Error::file("remove", &path))?;
        }
    }
    Ok(())
}

fn merge(merger: &Path, counts: &Path, into: &Path) -> Result<()> {
    let half = into.with_extension("half");
    shell::output(Command::new(merger).arg("merge").arg("--output").arg(&half).arg(counts))?;
    fs::rename(&half, into).map_err(Error::file("name", into))
}

/// `llvm-profdata`, which has to be of the compiler's own LLVM: the format of counts changes with it.
fn merger() -> Result<PathBuf> {
    let rustc = |arg: &str| shell::output(Command::new("rustc").args(arg.split(' ')));
    let told = rustc("--version --verbose")?;
    let field = |name: &str| told.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let version = field("LLVM version:").and_then(|it| it.split('.').next()).unwrap_or_default();
    let root = PathBuf::from(rustc("--print sysroot")?.trim());
    let of_rustup =
        root.join("lib/rustlib").join(field("host:").unwrap_or_default()).join("bin/llvm-profdata");
    let of_debian = PathBuf::from(format!("/usr/lib/llvm-{version}/bin/llvm-profdata"));
    [of_rustup, of_debian].into_iter().find(|path| path.is_file()).ok_or_else(|| {
        Error::Lacks(format!(
            "llvm-profdata of LLVM {version}: `rustup component add llvm-tools`, or Debian's llvm-{version}; \
             `cargo xtask dist --plain` does without"
        ))
    })
}
