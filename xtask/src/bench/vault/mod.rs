//! The vault, beside litestream 0.3.13 (from npm), SQLite's own `.backup` in a loop, and nothing: the same writer, the
//! same database, taking turns.
//!
//! The writer is a program of its own with its own SQLite: Debian's Python. What was lost is what its database has and
//! the restored one has not, by the times in its rows.

mod agent;
mod burst;
mod cost;
mod ground;
mod loss;
mod restore;
mod restores;
mod writer;

use crate::bench::{Part, Setting};
use crate::error::Result;

use agent::{Agent, Kind, Tools};
use ground::Ground;

/// A database of so many bytes, written to at this rate, for so long.
const TRAINING: (u64, u32, u32) = (20 << 20, 300, 8);

/// A file each; a new one is entered here.
pub(super) const PARTS: &[Part] = &[
    Part { name: "loss", run: loss::run },
    Part { name: "cost", run: cost::run },
    Part { name: "burst", run: burst::run },
    Part { name: "restore", run: restore::run },
    Part { name: "restores", run: restores::run },
];

/// Ships for a while, and restores; nobody measures it.
pub(super) fn train(setting: &Setting<'_>) -> Result<()> {
    let (bytes, rate, seconds) = TRAINING;
    let tools = Tools::without_peers(setting);
    let ground = Ground::new(bytes)?;
    let mut agent = Agent::start(&tools, Kind::Vault, &ground)?;
    writer::wait(writer::start(&ground.database(), rate, seconds)?)?;
    agent::restore(&tools, Kind::Vault, &ground, "restored.db")?;
    agent.end();
    Ok(())
}
