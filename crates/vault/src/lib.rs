//! Backups of SQLite databases from outside of the program that writes them.
//!
//! Committed transactions are copied out of the write-ahead log a moment after they happen, while a read mark is held
//! that keeps SQLite from beginning the log again before all of it was copied. Nothing is written to the database, and
//! nothing of it is configured. What was copied counts as a backup only after it was restored and compared.
//!
//! Decisions and formats are in modules without I/O: [`wal`], [`position`], [`names`], [`segment`], [`manifest`],
//! [`plan`], [`retention`], [`tripwire`]. Not known here: the configuration file, the command line, services.

pub mod agent;
pub mod catalogue;
pub mod check;
pub mod config;
pub mod contents;
pub mod copier;
pub mod database;
pub mod engine;
pub mod error;
pub mod fault;
pub mod fence;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod head;
pub mod image;
pub mod keeper;
pub mod leap;
pub mod manifest;
pub mod merge;
pub mod names;
pub mod outbox;
pub mod pack;
pub mod page_hash;
pub mod page_one;
pub mod plan;
pub mod position;
pub mod pressure;
pub mod progress;
pub mod prune;
mod readers;
pub mod restore;
pub mod retention;
mod room;
pub mod seal;
pub mod segment;
pub mod shared;
mod shipped;
pub mod shipper;
pub mod snapshot;
pub mod sqlite_version;
pub mod state;
pub mod status;
pub mod store;
pub mod table;
pub mod tail;
pub mod tripwire;
pub mod verify;
pub mod wal;

pub use config::VaultConfig;
pub use error::{Error, Result};
