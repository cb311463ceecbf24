//! `plimsoll export`: the configuration in the words of other tools.

mod systemd;

use std::io::{self, Write};
use std::path::PathBuf;

use crate::cli::{Exit, Export, ExportVerb, Global};
use crate::config::{Config, ConfigErrors};

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("{0}")]
    Config(ConfigErrors),
    #[error("this program's own path cannot be found: {0}")]
    Program(io::Error),
    #[error("{path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("a unit cannot name {0}: it has a line break in it")]
    Unnameable(PathBuf),
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

impl ExportError {
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::Write { .. } | Self::Unnameable(_) => Exit::Usage,
            Self::Program(_) | Self::Print(_) => Exit::Internal,
        }
    }
}

pub fn run(args: &Export, global: &Global, out: &mut dyn Write) -> Result<Exit, ExportError> {
    match &args.verb {
        ExportVerb::Systemd(args) => systemd::run(args, global, out),
    }
}

fn read(path: &std::path::Path) -> Result<Config, ExportError> {
    Config::read(path).map(|(config, _)| config).map_err(ExportError::Config)
}
