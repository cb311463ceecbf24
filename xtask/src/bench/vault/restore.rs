//! A gigabyte and what was written since, back again.

use std::time::Duration;

use crate::bench::Setting;
use crate::bench::figure::Figure;
use crate::error::{Error, Result};

use super::agent::{Agent, Footprint, Kind, Tools, backup_verified, restore};
use super::ground::Ground;
use super::writer;

const DATABASE_BYTES: u64 = 1 << 30;
/// An hour at 10 a second, in a minute.
const RATE: u32 = 600;
const SECONDS: u32 = 60;
const PROMISED: f64 = 30.0;
const RSS_MAX: f64 = 32.0 * 1024.0 * 1024.0;

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Figure>> {
    let tools = Tools::ready(setting)?;
    let (ours, footprint) = once(&tools, Kind::Vault)?;
    let (theirs, their_footprint) = once(&tools, Kind::Litestream)?;
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64().max(f64::MIN_POSITIVE);
    Ok(vec![
        Figure::times("restore of 1 GiB and 36,000 transactions, vault, all of it checked", &[ours])
            .promised(PROMISED),
        Figure::times("the same, litestream, nothing checked", &[theirs]),
        Figure::times("vault to litestream", &[ours]).compared(Some(ratio)).promised_ratio_at_most(1.0),
        Figure::bytes("resident memory at 1 GiB, vault", &[footprint.resident_bytes]).promised(RSS_MAX),
        Figure::bytes("the most at any time, vault", &[footprint.peak_bytes]).promised(RSS_MAX),
        Figure::bytes("resident memory at 1 GiB, litestream", &[their_footprint.resident_bytes]),
        Figure::bytes("the most at any time, litestream", &[their_footprint.peak_bytes]),
    ])
}

fn once(tools: &Tools, kind: Kind) -> Result<(Duration, Footprint)> {
    let ground = Ground::new(DATABASE_BYTES)?;
    let mut agent = Agent::start(tools, kind, &ground)?;
    writer::wait(writer::start(&ground.database(), RATE, SECONDS)?)?;
    let footprint = agent.footprint()?;
    std::thread::sleep(Duration::from_secs(2));
    agent.end();
    let took = restore(tools, kind, &ground, "restored.db")?;
    let (_, rows, is_sound) = writer::newest(&ground.path("restored.db"))?;
    let (_, all, _) = writer::newest(&ground.database())?;
    if !is_sound || rows != all {
        return Err(Error::Check(format!(
            "{} restored {rows} of {all} rows, sound: {is_sound}",
            kind.name()
        )));
    }
    if kind == Kind::Vault {
        // What it does daily takes the most: a snapshot, restored to be compared, and again from the one before it.
        let agent = Agent::start(tools, kind, &ground)?;
        backup_verified(tools, &ground)?;
        let peak_bytes = footprint.peak_bytes.max(agent.footprint()?.peak_bytes);
        return Ok((took, Footprint { peak_bytes, ..footprint }));
    }
    Ok((took, footprint))
}
