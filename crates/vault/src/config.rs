//! What one vault is told: which database, where to, how often, and what is kept.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::Result;
use crate::retention::Keep;
use crate::seal::{Seal, parse_recipient};
use crate::store::StoreConfig;

/// Between two looks at the log: what a crash of the machine may cost, with a store on this machine.
pub const TICK_LOCAL: Duration = Duration::from_millis(100);
/// The same for a bucket, where each object costs money.
pub const TICK_REMOTE: Duration = Duration::from_secs(1);
/// A log that has grown to this is written into the database, with the application's writers held for a moment.
pub const PRESSURE_DEFAULT: u64 = 4 << 20;
/// Between two signs of life of whoever writes to a target.
pub const BEAT_DEFAULT: Duration = Duration::from_secs(20);
pub const SPOOL_DEFAULT: u64 = 4 << 30;
pub const HISTORY_DEFAULT: Duration = Duration::from_hours(7 * 24);
pub const VERIFY_DEFAULT: Duration = Duration::from_hours(24);

#[derive(Clone, Debug)]
pub struct VaultConfig {
    /// `a-z`, `0-9` and `-`; names its folder in the state.
    pub name: String,
    pub database: PathBuf,
    pub store: StoreConfig,
    /// Its own folder.
    pub state: PathBuf,
    /// Between two snapshots.
    pub every: Duration,
    /// Copies transactions as they happen, and not only snapshots.
    pub is_continuous: bool,
    pub keep: Keep,
    /// For so long each transaction can be restored to.
    pub history: Duration,
    /// Between two restores that are compared.
    pub verify: Duration,
    pub tick: Duration,
    /// Bytes of the log at which it is written into the database.
    pub pressure: u64,
    /// Bytes that may wait for the store.
    pub spool: u64,
    /// Between two signs of life.
    pub beat: Duration,
    /// `age1…`; none: not encrypted.
    pub recipients: Vec<String>,
    /// A file as `age-keygen` writes it, and its text.
    pub identity: Option<(PathBuf, String)>,
}

impl VaultConfig {
    pub fn seal(&self) -> Result<Seal> {
        let recipients = self.recipients.iter().map(|text| {
            parse_recipient(text).map_err(|why| crate::Error::Key { name: text.clone(), why: why.to_owned() })
        });
        let seal = Seal::new(recipients.collect::<Result<_>>()?);
        match &self.identity {
            Some((path, text)) => seal.with_identity(text, path),
            None => Ok(seal),
        }
    }
}
