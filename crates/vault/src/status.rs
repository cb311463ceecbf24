//! How one vault is doing, as it tells it.

use serde::{Deserialize, Serialize};

use crate::names::Millis;

/// What is being done for the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Transactions are copied as they happen.
    Continuous,
    /// The database has no write-ahead log, or `continuous` is off.
    Snapshots,
    /// Nothing is copied; the problems say why.
    #[default]
    Stopped,
}

impl Mode {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Continuous => "continuous",
            Self::Snapshots => "snapshots",
            Self::Stopped => "stopped",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub name: String,
    pub database: String,
    pub to: String,
    pub mode: Mode,
    /// Why it is not continuous, where it is not.
    pub why: Option<String>,
    pub epoch: Option<String>,
    /// The last transaction that was copied.
    pub tx: Option<u64>,
    /// Everything that was committed by then is in the store.
    pub fresh_as_of: Option<Millis>,
    pub last_snapshot: Option<Millis>,
    /// The newest snapshot that was restored and compared, and when that was done.
    pub last_backup: Option<Millis>,
    pub verified: Option<Millis>,
    pub backups: u64,
    pub snapshots: u64,
    /// What waits for the store.
    pub waiting_bytes: u64,
    /// Of the log, in use.
    pub log_bytes: u64,
    /// The longest that writers were held.
    pub held_ms_max: u64,
    /// Of the last program that wrote to the database.
    pub sqlite_version: Option<String>,
    pub problems: Vec<String>,
}

/// Something for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The vault's name.
    pub vault: String,
    pub kind: &'static str,
    /// `info`, `warning` or `page`.
    pub severity: &'static str,
    pub message: String,
}
