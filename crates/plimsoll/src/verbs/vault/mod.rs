//! `plimsoll vault …`: backups that were restored before they count. A file per verb.

mod backup;
mod bar;
mod boot;
mod drill;
mod list;
mod names;
mod prune;
mod replace;
mod restore;
mod status;
mod verify;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use plimsoll_vault::agent::{self, ask};
use plimsoll_vault::engine::Engine;
use plimsoll_vault::keeper::{Answer, Wanted};
use plimsoll_vault::names::Millis;
use plimsoll_vault::seal::Seal;
use plimsoll_vault::{Error, VaultConfig};

use self::bar::Bar;
pub(super) use self::status::summary;
use super::reach::{self, ReachError};
use crate::cli::{Exit, Global, VaultArgs, VaultVerb};
use crate::config::{Config, ConfigErrors, SecretError, Vault, file_or_default};
use crate::vaults;

#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error("{0}")]
    Config(ConfigErrors),
    #[error("vault: identity: {0}")]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Vault(#[from] Error),
    #[error(transparent)]
    Reach(#[from] ReachError),
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
    /// In the wrong way asked.
    #[error("{0}")]
    Usage(String),
    /// The answer is no.
    #[error("{0}")]
    No(String),
}

impl VaultError {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::Secret(_) | Self::Usage(_) => Exit::Usage,
            Self::Vault(error) => vault_exit(error),
            Self::Reach(error) => error.exit(),
            Self::Print(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Print(_) => Exit::Internal,
            Self::No(_) => Exit::No,
        }
    }
}

fn vault_exit(error: &Error) -> Exit {
    match error {
        Error::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Exit::NotPermitted,
        Error::InTheWay(_) | Error::Address { .. } => Exit::Usage,
        Error::File { .. }
        | Error::Database { .. }
        | Error::Unfit { .. }
        | Error::NoRoom { .. }
        | Error::Store { .. }
        | Error::Fenced { .. }
        | Error::Spoiled { .. }
        | Error::Key { .. }
        | Error::Segment { .. }
        | Error::Plan(_)
        | Error::NotEqual(_)
        | Error::Ended(_) => Exit::No,
    }
}

pub fn run(args: &VaultArgs, global: &Global, out: &mut dyn Write) -> Result<Exit, VaultError> {
    match &args.verb {
        VaultVerb::Status(args) => status::run(args, global, out),
        VaultVerb::Backup(args) => backup::run(args, global, out),
        VaultVerb::List(args) => list::run(args, global, out),
        VaultVerb::Verify(args) => verify::run(args, global, out),
        VaultVerb::Restore(args) => restore::run(args, global, out),
        VaultVerb::Drill(args) => drill::run(args, global, out),
        VaultVerb::Prune(args) => prune::run(args, global, out),
    }
}

/// One `[[vault]]` of the configuration, with everything it takes.
#[derive(Debug)]
struct Chosen {
    table: Vault,
    vault: VaultConfig,
    config: Config,
}

impl Chosen {
    /// By its own name, or its database's.
    fn is_named(&self, name: &str) -> bool {
        let path = std::path::absolute(name).unwrap_or_else(|_| PathBuf::from(name));
        self.vault.name == name || self.vault.database == path
    }
}

/// All of them.
fn all(global: &Global) -> Result<Vec<Chosen>, VaultError> {
    let path = file_or_default(global.config.as_deref());
    // What services need is no matter here: a backup can be restored where nothing else is in place.
    let (config, _) = Config::read(&path).map_err(VaultError::Config)?;
    let (state, _) = reach::places(global);
    let chosen = config.vaults.iter().map(|table| {
        let vault = vaults::config(table, &state)?;
        Ok(Chosen { table: table.clone(), vault, config: config.clone() })
    });
    chosen.collect()
}

/// The one that is named, by its name or its database's; without a name the only one.
fn choose(name: Option<&str>, global: &Global) -> Result<Chosen, VaultError> {
    let mut all = all(global)?;
    let index = match name {
        Some(name) => all.iter().position(|it| it.is_named(name)),
        None if all.len() == 1 => Some(0),
        None => None,
    };
    match index {
        Some(index) => Ok(all.swap_remove(index)),
        None => Err(unknown(&all, name)),
    }
}

fn unknown(all: &[Chosen], name: Option<&str>) -> VaultError {
    let names: Vec<&str> = all.iter().map(|it| it.vault.name.as_str()).collect();
    if names.is_empty() {
        return VaultError::Usage("the configuration has no [[vault]]".to_owned());
    }
    let what = name.map_or_else(|| "say which vault".to_owned(), |name| format!("no vault is named {name}"));
    VaultError::Usage(format!("{what}; there is {}", names.join(", ")))
}

/// Has a running vault do it, with its progress shown; `None` where none runs.
fn ask_running(vault: &VaultConfig, what: &Wanted) -> Result<Option<serde_json::Value>, VaultError> {
    let bar = Bar::new();
    let answer = ask(&vault.state, what, |answer| {
        if let Answer::Progress { phase, is_bytes, done, total } = answer {
            bar.show(phase, *is_bytes, *done, *total);
        }
    });
    bar.clear();
    match answer? {
        None => Ok(None),
        Some(Answer::Done(value)) => Ok(Some(value)),
        Some(Answer::Failed { message, .. }) => Err(VaultError::No(message)),
        Some(Answer::Progress { .. }) => Err(VaultError::No("the vault did not answer".to_owned())),
    }
}

/// Opens it here, for when no vault runs.
fn open_here(vault: VaultConfig) -> Result<Engine, VaultError> {
    let socket = agent::socket_path(&vault.state);
    Engine::open(vault)?.ok_or_else(|| {
        VaultError::No(format!("another process has this vault, and does not answer at {}", socket.display()))
    })
}

/// With the key of a file on top, if one is given.
fn with_key(seal: Seal, identity: Option<&Path>) -> Result<Seal, VaultError> {
    let Some(path) = identity else { return Ok(seal) };
    let text = std::fs::read_to_string(path)
        .map_err(|error| VaultError::Usage(format!("identity {}: cannot read: {error}", path.display())))?;
    Ok(seal.with_identity(&text, path)?)
}

fn print_json(out: &mut dyn Write, value: &impl serde::Serialize) -> Result<(), VaultError> {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    Ok(writeln!(out)?)
}

/// `2026-11-23 20:00:00`
fn time(time: Millis) -> String {
    time.timestamp().strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// `1 snapshot`, `2 snapshots`
fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn bytes(bytes: u64) -> String {
    plimsoll_core::units::Bytes(bytes).to_string()
}
