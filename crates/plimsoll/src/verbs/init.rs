//! `plimsoll init`: looks at a project and writes a commented `plimsoll.toml` for it.
//!
//! It only looks at files and starts nothing. What it writes always loads; whether the programs in it can be started
//! here and now is told beside it.

mod compose;
mod container;
mod look;
mod node;
mod shell;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::cli::{Exit, Init};
use crate::config::{Config, FILE_DEFAULT, Host};

pub use look::{Findings, Process};

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("{} is already there: --force overwrites it, --stdout only shows what would be written", .0.display())]
    Exists(PathBuf),
    #[error("{} is not a folder", .0.display())]
    NotAFolder(PathBuf),
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

impl InitError {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Exists(_) | Self::NotAFolder(_) => Exit::Usage,
            Self::Write { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Exit::NotPermitted
            }
            Self::Write { .. } | Self::Print(_) => Exit::Internal,
        }
    }
}

const NOTHING_FOUND: &str = "\
nothing to guard was found here: no package.json, Procfile, pyproject.toml, Cargo.toml, go.mod, *.jar or Dockerfile
that says what to start. Nothing was written.

Write plimsoll.toml yourself; this is enough:

    [service.web]
    command = [\"./my-program\", \"--port\", \"{port}\"]

or guard a command without any file: plimsoll run -- ./my-program
";

/// Writes the configuration, or prints it; what it found and why it chose is told on `out`.
pub fn run(args: &Init, out: &mut impl Write) -> Result<Exit, InitError> {
    if !args.folder.is_dir() {
        return Err(InitError::NotAFolder(args.folder.clone()));
    }
    let target = args.folder.join(FILE_DEFAULT);
    if !args.stdout && !args.force && fs::symlink_metadata(&target).is_ok() {
        return Err(InitError::Exists(target));
    }
    let findings = look::look(&args.folder);
    if findings.processes.is_empty() {
        out.write_all(NOTHING_FOUND.as_bytes())?;
        return Ok(Exit::No);
    }
    let text = compose::configuration(&findings);
    if args.stdout {
        out.write_all(text.as_bytes())?;
        return Ok(Exit::Done);
    }
    save(&target, &text, args.force)?;
    tell(&findings, &target, text, out)?;
    Ok(Exit::Done)
}

fn tell(findings: &Findings, target: &Path, text: String, out: &mut impl Write) -> io::Result<()> {
    for note in &findings.notes {
        writeln!(out, "found   {note}")?;
    }
    for process in &findings.processes {
        writeln!(out, "chose   {}: {} ({})", process.name, process.command.join(" "), process.why)?;
    }
    writeln!(out, "wrote   {}", target.display())?;
    let checked = Config::parse(target, text, Some(&Host::this()));
    if let Err(errors) = &checked {
        for finding in errors.findings() {
            let hint = finding.hint.as_deref().map(|hint| format!(": {hint}")).unwrap_or_default();
            writeln!(out, "not yet {}{hint}", finding.message)?;
        }
    }
    let next =
        if checked.is_ok() { "plimsoll check, then plimsoll run" } else { "mend that, then plimsoll check" };
    writeln!(out, "next    {next}")
}

/// Beside the target, synced, renamed: a file half written is never there, and none is overwritten by accident.
fn save(target: &Path, text: &str, force: bool) -> Result<(), InitError> {
    let failed = |source: io::Error| InitError::Write { path: target.to_owned(), source };
    let folder = target.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".plimsoll-")
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    let kept = if force { file.persist(target) } else { file.persist_noclobber(target) };
    match kept {
        Ok(_) => fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            Err(InitError::Exists(target.to_owned()))
        }
        Err(error) => Err(failed(error.error)),
    }
}
