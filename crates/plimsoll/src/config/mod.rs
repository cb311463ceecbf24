//! `plimsoll.toml`: read whole, checked whole, and told whole. Nothing is started before everything here is right.
//!
//! Reading goes in one direction: `section` hands out typed values and collects what is wrong, the modules named for
//! the file's tables turn them into `model`, and `finding` shows every fault at its place in the text.
//!
//! Not known here: how anything is carried out.

mod env_file;
mod finding;
mod front;
mod homes;
mod host;
mod layers;
mod listeners;
mod model;
mod others;
pub mod places;
mod quantity;
mod secret;
mod section;
mod service;
mod source;
mod suggest;
mod unbound;
mod vault;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use plimsoll_guard::placeholders;

pub use finding::{ConfigErrors, Finding, Severity, Warning};
pub use host::{Host, runtime};
pub use model::*;
pub use others::ADMIN_HTTP_DEFAULT;
pub use quantity::{size_text, span_text};
pub use secret::{Secret, SecretError, SecretRef};
pub use source::Place;
pub use unbound::CommandOptions;

use finding::Log;
use section::Section;
use service::Around;
use source::Source;

/// The file that is read when none is named.
pub const FILE_DEFAULT: &str = "plimsoll.toml";

/// Tables that are understood and checked, and that this version does not carry out yet. `check` says so.
pub const NOT_YET: [&str; 2] = ["alerts", "docker"];

/// No configuration is longer; whatever is, is the wrong file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

impl Config {
    /// Reads and checks `path`, and what it names on this machine: programs, folders, users, secrets.
    pub fn load(path: &Path) -> Result<(Self, Vec<Warning>), ConfigErrors> {
        Self::load_for(path, Some(&Host::this()))
    }

    /// Reads and checks the text alone: enough to find the control socket, and independent of this machine. `env_file`
    /// stays unread.
    pub fn read(path: &Path) -> Result<(Self, Vec<Warning>), ConfigErrors> {
        Self::load_for(path, None)
    }

    /// As [`load`](Self::load) on the machine `host`, or as [`read`](Self::read) without one.
    pub fn load_for(path: &Path, host: Option<&Host>) -> Result<(Self, Vec<Warning>), ConfigErrors> {
        let text = text_of(path)?;
        Self::parse(path, text, host)
    }

    /// As [`load_for`](Self::load_for), for a text that is at hand and would be at `path`.
    pub fn parse(
        path: &Path,
        text: String,
        host: Option<&Host>,
    ) -> Result<(Self, Vec<Warning>), ConfigErrors> {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let folder = absolute.parent().unwrap_or(Path::new("/")).to_owned();
        let mut source = Source::new(path.to_owned(), text);
        let log = Log::default();
        let (config, hidden) = {
            let (document, errors) = DeTable::parse_recoverable(source.text());
            for error in &errors {
                let (message, hint) = syntax(error.message());
                log.error(error.span(), message, hint);
            }
            let around = Around { folder: &folder, host };
            // After a fault of syntax the rest would be told wrongly: keys lost with their line look missing.
            let config = errors.is_empty().then(|| document_config(document.get_ref(), &log, around));
            (config, private(document.get_ref()))
        };
        source.hide(hidden);
        finish(config, log, &source).map(|(mut config, warnings)| {
            config.source = Some(absolute);
            (config, warnings)
        })
    }
}

fn finish(config: Option<Config>, log: Log, source: &Source) -> Result<(Config, Vec<Warning>), ConfigErrors> {
    let failed = log.has_errors();
    let findings = log.into_findings(Some(source));
    match config.filter(|_| !failed) {
        Some(config) => Ok((config, findings.into_iter().map(Warning).collect())),
        None => Err(ConfigErrors::of(findings)),
    }
}

fn document_config(document: &DeTable<'_>, log: &Log, around: Around<'_>) -> Config {
    let config = Section::root(document, log).read(|root| read_root(root, log, around));
    let guards = ["service", "sweep", "docker"].iter().any(|key| document.contains_key(*key));
    // With a table misspelt, that is the fault to tell.
    if !guards && !log.has_errors() {
        let hint = "write [service.web], and below it command = [\"node\", \"server.js\"]";
        log.error(None, "there is nothing to guard", hint);
    }
    config
}

fn read_root(root: &Section<'_>, log: &Log, around: Around<'_>) -> Config {
    let services = root.section("service").map(|table| service::services(&table, around)).unwrap_or_default();
    let names: Vec<&str> = services.iter().map(|read| read.service.name.as_str()).collect();
    let front = front::front(root.section("front"), around.folder, &names);
    let (admin, admin_address) = others::admin(root.section("admin"), around);
    let vaults = vault::vaults(root.sections("vault"), around, &names);
    let alerts = others::alerts(root.section("alerts"), around);
    let sweeps = others::sweeps(root.sections("sweep"));
    let docker = others::docker(root.section("docker"));
    let (front, front_addresses) = front.unzip();
    let own = front_addresses.unwrap_or_default().into_iter().map(|address| ("front", address));
    let own = own.chain(admin_address.map(|address| ("admin", address)));
    listeners::check(log, &services, own);
    let not_yet = NOT_YET.into_iter().filter(|key| root.has(key)).collect();
    Config {
        source: None,
        folder: around.folder.to_owned(),
        services: services.into_iter().map(|read| read.service).collect(),
        front,
        admin,
        vaults,
        alerts,
        sweeps,
        docker,
        not_yet,
    }
}

/// The configuration's text, unread.
pub fn text_of(path: &Path) -> Result<String, ConfigErrors> {
    let failed = |message: String, hint: &str| {
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        ConfigErrors::file(path.to_owned(), message, hint)
    };
    let unreadable = |error: std::io::Error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            let hint =
                "`plimsoll init` writes one, --config names another, `plimsoll run -- COMMAND` needs none";
            return failed("there is no such file".to_owned(), hint);
        }
        failed(format!("cannot be read: {error}"), "")
    };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(failed("is a folder".to_owned(), "name the file in it, such as plimsoll.toml"));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(failed("is longer than 1 MiB".to_owned(), "this is hardly a configuration"));
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = String::from_utf8_lossy(good).matches('\n').count() + 1;
        failed(format!("line {line} is not UTF-8"), "save the file as UTF-8")
    })
}

/// The parser's words, or better ones for the two faults that people make most.
fn syntax(message: &str) -> (&str, &'static str) {
    if message.starts_with("duplicate key") {
        (message, "it is already written further up: keep one")
    } else if message.starts_with("string values must be quoted") {
        ("text without quotes", "put it in quotes; only numbers, true and false stand without")
    } else {
        (message, "")
    }
}

/// Values that may be secrets: in `alerts` and `admin`, and the environment of every service.
fn private(document: &DeTable<'_>) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for value in ["alerts", "admin"].into_iter().filter_map(|key| document.get(key)) {
        texts_in(value, &mut found);
    }
    let services = document.get("service").and_then(|value| value.get_ref().as_table());
    for service in services.into_iter().flat_map(|services| services.values()) {
        let environment = service.get_ref().as_table().and_then(|service| service.get("env"));
        if let Some(value) = environment {
            texts_in(value, &mut found);
        }
    }
    found
}

fn texts_in(value: &Spanned<DeValue<'_>>, found: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        DeValue::String(text) if is_private(text) => found.push(value.span()),
        DeValue::Array(items) => items.iter().for_each(|item| texts_in(item, found)),
        DeValue::Table(entries) => entries.values().for_each(|entry| texts_in(entry, found)),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => {}
    }
}

/// A reference and a plain address to listen on are no secrets, and worth seeing.
fn is_private(text: &str) -> bool {
    let reference = text.starts_with("env:") || text.starts_with("file:");
    !reference && text.parse::<std::net::SocketAddr>().is_err()
}

/// The file that is meant: the one named, or the default one.
pub fn file_or_default(named: Option<&Path>) -> PathBuf {
    named.map_or_else(|| PathBuf::from(FILE_DEFAULT), Path::to_owned)
}

/// A size for the command line; the error says what would be right.
pub fn parse_size(text: &str) -> Result<plimsoll_core::units::Bytes, String> {
    quantity::size(text).map_err(|refused| refused.hint)
}

/// A duration for the command line; the error says what would be right.
pub fn parse_span(text: &str) -> Result<std::time::Duration, String> {
    quantity::span(text).map_err(|refused| refused.hint)
}

/// Whether `path` can be used as `env_file`.
pub fn is_env_file(path: &Path) -> bool {
    env_file::read(path).is_ok()
}
