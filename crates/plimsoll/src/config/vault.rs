//! `[[vault]]`: which database, where to, how often, what is kept.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use plimsoll_core::units::Bytes;
use plimsoll_vault::config::{HISTORY_DEFAULT, PRESSURE_DEFAULT, SPOOL_DEFAULT, VERIFY_DEFAULT};
use plimsoll_vault::seal::parse_recipient;
use toml::Spanned;

use super::model::Vault;
use super::others::{required, secret};
use super::section::Section;
use super::service::Around;

const EVERY_DEFAULT: Duration = Duration::from_hours(24);
const KEEP_MAX: u32 = 10_000;
const STORES: [&str; 4] = ["file://", "s3://", "gs://", "az://"];
const NAME_LENGTHS: RangeInclusive<usize> = 1..=63;
/// Less of a log is written into the database all the time.
const PRESSURE_MIN: Bytes = Bytes::mib(1);

/// `services`: the names of all.
pub(super) fn vaults(sections: Vec<Section<'_>>, around: Around<'_>, services: &[&str]) -> Vec<Vault> {
    let (mut names, mut targets) = (BTreeSet::new(), BTreeSet::new());
    let mut vaults = Vec::new();
    for section in sections {
        let vault = section.read(|section| {
            let vault = read(section, around, services)?;
            if !names.insert(vault.name.clone()) {
                let hint = "write name = \"…\", another for each";
                section.error(section.span_of("name"), format!("two vaults are named {}", vault.name), hint);
            }
            if !targets.insert(vault.to.trim_end_matches('/').to_owned()) {
                let hint = "give each vault a folder of its own";
                section.error(section.span_of("to"), "two vaults write to the same place", hint);
            }
            Some(vault)
        });
        vaults.extend(vault);
    }
    vaults
}

fn read(section: &Section<'_>, around: Around<'_>, services: &[&str]) -> Option<Vault> {
    let database = section.text("database", "data/reports.db");
    let to = section.text("to", "file:///var/backups/reports");
    let every = section.positive_duration("every", "24h");
    let continuous = section.flag("continuous");
    let keep = section.section("keep").map(|keep| {
        keep.read(|keep| ["daily", "weekly", "monthly"].map(|key| keep.small(key, 0..=KEEP_MAX)))
    });
    let [daily, weekly, monthly] = keep.unwrap_or_default();
    let history = section.duration("history", "7d");
    let verify = section.positive_duration("verify", "24h");
    let pressure = section.size("pressure", "4MiB");
    let spool = section.size("spool", "4GiB");
    let bandwidth = section.size("bandwidth", "10MiB");
    let recipients = recipients(section);
    let identity = secret(section, "identity", "file:/etc/plimsoll/backup.key", around);
    let written = section.text("name", "reports");
    let service = service(section, services);
    required(section, "database", "data/reports.db");
    required(section, "to", "file:///var/backups/reports");
    if let Some(to) = to.as_ref().filter(|to| !STORES.iter().any(|store| to.get_ref().starts_with(store))) {
        let hint = "write an address that begins with file://, s3://, gs:// or az://";
        section.error(to.span(), "to is not a store", hint);
    }
    if let Some(small) = pressure.as_ref().filter(|it| *it.get_ref() < PRESSURE_MIN) {
        section.error(small.span(), "pressure is under 1 MiB", "write pressure = \"4MiB\"");
    }
    let name = name(section, written, database.as_ref())?;
    Some(Vault {
        name,
        service,
        database: around.folder.join(database?.into_inner()),
        to: to?.into_inner(),
        every: every.map_or(EVERY_DEFAULT, Spanned::into_inner),
        continuous: continuous.is_none_or(Spanned::into_inner),
        keep_daily: daily.unwrap_or(7),
        keep_weekly: weekly.unwrap_or(4),
        keep_monthly: monthly.unwrap_or(12),
        history: history.map_or(HISTORY_DEFAULT, Spanned::into_inner),
        verify: verify.map_or(VERIFY_DEFAULT, Spanned::into_inner),
        pressure: pressure.map_or(Bytes(PRESSURE_DEFAULT), Spanned::into_inner),
        spool: spool.map_or(Bytes(SPOOL_DEFAULT), Spanned::into_inner),
        bandwidth: bandwidth.map(Spanned::into_inner),
        recipients,
        identity,
    })
}

/// The one that is written, or that of the file.
fn name(
    section: &Section<'_>,
    written: Option<Spanned<String>>,
    database: Option<&Spanned<String>>,
) -> Option<String> {
    let is_right = |name: &str| {
        NAME_LENGTHS.contains(&name.len())
            && !name.starts_with('-')
            && name.bytes().all(|it| matches!(it, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    let Some(written) = written else {
        let stem = Path::new(database?.get_ref()).file_stem()?.to_str()?.to_lowercase();
        let name: String = stem.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '-' }).collect();
        let name = name.trim_matches('-').to_owned();
        return Some(if is_right(&name) { name } else { "database".to_owned() });
    };
    if !is_right(written.get_ref()) {
        let hint = "write a name of a-z, 0-9 and -, such as name = \"reports\"";
        section.error(written.span(), "name is not a name", hint);
    }
    Some(written.into_inner())
}

/// Whose database it is: the one that is written, or the only one.
fn service(section: &Section<'_>, services: &[&str]) -> Option<String> {
    let Some(written) = section.text("service", "reports") else {
        return if let [only] = services { Some((*only).to_owned()) } else { None };
    };
    if !services.contains(&written.get_ref().as_str()) {
        let hint = format!("there is {}", services.join(", "));
        section.error(written.span(), format!("no service is named {}", written.get_ref()), &hint);
    }
    Some(written.into_inner())
}

fn recipients(section: &Section<'_>) -> Vec<String> {
    let example = "[\"age1…\"]";
    let listed = section.list("recipients", example).map_or_else(Vec::new, Spanned::into_inner);
    for recipient in &listed {
        if let Err(why) = parse_recipient(recipient.get_ref()) {
            let hint = "write what `age-keygen` calls the public key: age1…";
            section.error(recipient.span(), format!("not a recipient: {why}"), hint);
        }
    }
    listed.into_iter().map(Spanned::into_inner).collect()
}
