//! Talking to the guard, for every verb that does.

use std::io;
use std::path::PathBuf;

use plimsoll_guard::control::client::{Client, ClientError};

use plimsoll_guard::ledger::{self, LedgerError, Reader};
use plimsoll_guard::records::Status;

use crate::cli::{Exit, Global};
use crate::config::{Config, file_or_default};
use crate::settings;

#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot start a runtime: {0}")]
    Runtime(io::Error),
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The guard answered, and the answer is no.
    #[error("{0}")]
    No(String),
}

impl ReachError {
    pub fn exit(&self) -> Exit {
        match self {
            // No guard answers, and for the ledger: nothing is kept where it was looked for either.
            Self::Client(ClientError::Unreachable { .. } | ClientError::Broken { .. }) | Self::Ledger(_) => {
                Exit::Unreachable
            }
            Self::Client(ClientError::NotPermitted { .. }) => Exit::NotPermitted,
            Self::Client(ClientError::Refused { .. } | ClientError::NotFound { .. }) => Exit::Usage,
            // A reader that has seen enough (`| head`) is no fault.
            Self::Print(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Runtime(_) | Self::Print(_) => Exit::Internal,
            Self::No(_) => Exit::No,
        }
    }
}

/// Where the state folder and the socket are. A configuration that cannot be read is no hindrance: it is `check` that
/// tells what is wrong with it.
pub(super) fn places(global: &Global) -> (PathBuf, PathBuf) {
    let config = Config::read(&file_or_default(global.config.as_deref())).ok();
    settings::places(global, config.as_ref().map(|(config, _)| config))
}

pub(super) fn client(global: &Global) -> Client {
    Client::new(&places(global).1)
}

/// The ledger's file itself, for when no guard answers.
pub(super) fn ledger(global: &Global) -> Result<Reader, ReachError> {
    Ok(ledger::read_only(&places(global).0.join(ledger::FILE_NAME))?)
}

/// For when nothing was found of a service: an error where the guard has none of that name. Nothing is also what a slip
/// of the pen finds, and reads like good news.
pub(super) fn check_name(global: &Global, service: Option<&str>) -> Result<(), ReachError> {
    let Some(service) = service else { return Ok(()) };
    let client = client(global);
    let asked = wait(async { Ok(client.get::<Status>("/api/v1/status").await?) });
    match asked {
        Ok(status) if status.services.iter().any(|it| it.name == service) => Ok(()),
        Ok(status) => Err(unknown(&status, service)),
        // Nobody to ask: then nothing is all that can be said.
        Err(ReachError::Client(ClientError::Unreachable { .. })) => Ok(()),
        Err(error) => Err(error),
    }
}

pub(super) fn unknown(status: &Status, service: &str) -> ReachError {
    let known: Vec<&str> = status.services.iter().map(|it| it.name.as_str()).collect();
    let message = format!("no service is named {service:?}; there is {}", known.join(", "));
    ReachError::Client(ClientError::Refused { message })
}

/// Runs a conversation to its end.
pub(super) fn wait<T>(conversation: impl Future<Output = Result<T, ReachError>>) -> Result<T, ReachError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ReachError::Runtime)?;
    runtime.block_on(conversation)
}

/// `a=b&c=d` behind a path, values as they are: names and times need no escaping.
pub(super) fn target(path: &str, query: &[(&str, Option<String>)]) -> String {
    let pairs = query.iter().filter_map(|(key, value)| Some(format!("{key}={}", value.as_ref()?)));
    let query = pairs.collect::<Vec<_>>().join("&");
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}
