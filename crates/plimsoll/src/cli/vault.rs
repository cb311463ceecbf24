//! `plimsoll vault` and its verbs.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Since, parse_since};

#[derive(Debug, Args)]
#[command(after_help = "A snapshot counts as a backup only after it was restored and compared.\n\n\
                  Examples:\n  plimsoll vault restore --to 2026-11-23T20:00:00Z --into /tmp/then.db\n  \
                  plimsoll vault restore --to 10m --replace\n  \
                  plimsoll vault restore --from file:///mnt/backups/reports --into reports.db")]
pub struct VaultArgs {
    #[command(subcommand)]
    pub verb: VaultVerb,
}

#[derive(Debug, Subcommand)]
pub enum VaultVerb {
    /// Show how every vault is doing (exit 1 when one is not well)
    Status(OneVault),
    /// Take a snapshot now, such as before a deploy
    Backup(OneVault),
    /// List what can be restored, and what of it was
    List(OneVault),
    /// Restore into a scratch place and compare (exit 1 when it is no backup)
    Verify(VaultVerify),
    /// Restore to any moment that is kept
    Restore(VaultRestore),
    /// Restore, and boot the service's own command on the copy
    Drill(OneVault),
    /// Delete what no kept point needs
    Prune(VaultPrune),
}

#[derive(Debug, Args)]
pub struct OneVault {
    /// Its name, or its database [default: the only one]
    #[arg(value_name = "VAULT")]
    pub vault: Option<String>,
    /// Machine-readable
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct VaultVerify {
    /// Its name, or its database [default: the only one]
    #[arg(value_name = "VAULT")]
    pub vault: Option<String>,
    /// This one, as `vault list` names it [default: the newest]
    #[arg(long, value_name = "SNAPSHOT")]
    pub snapshot: Option<String>,
    /// The key of an encrypted vault, where the configuration has none
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Machine-readable
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct VaultPrune {
    /// Its name, or its database [default: the only one]
    #[arg(value_name = "VAULT")]
    pub vault: Option<String>,
    /// Delete (without this it is only reported)
    #[arg(long)]
    pub act: bool,
    /// Machine-readable
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct VaultRestore {
    /// Its name, or its database [default: the only one]
    #[arg(value_name = "VAULT", conflicts_with = "from")]
    pub vault: Option<String>,
    /// As of then: 10m ago, or 2026-11-23T20:00:00Z [default: the latest]
    #[arg(long, value_name = "TIME", value_parser = parse_since, conflicts_with_all = ["to_tx", "snapshot"])]
    pub to: Option<Since>,
    /// As of this transaction
    #[arg(long, value_name = "N", conflicts_with = "snapshot")]
    pub to_tx: Option<u64>,
    /// This snapshot and nothing after it, as `vault list` names it
    #[arg(long, value_name = "SNAPSHOT")]
    pub snapshot: Option<String>,
    /// Where to; nothing may be there
    #[arg(long, value_name = "PATH", required_unless_present = "replace")]
    pub into: Option<PathBuf>,
    /// Replace the live database: the service is stopped, the old file kept, and put back if the service does not get ready
    #[arg(long, conflicts_with = "into")]
    pub replace: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Straight from a store, without a configuration
    #[arg(long, value_name = "URL", conflicts_with = "replace")]
    pub from: Option<String>,
    /// The key of an encrypted vault, as age-keygen writes it
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Machine-readable
    #[arg(long)]
    pub json: bool,
}
