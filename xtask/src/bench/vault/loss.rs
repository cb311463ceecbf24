//! What is lost when the application and whoever backs it up are killed at the same moment.

use std::time::Duration;

use crate::bench::Setting;
use crate::bench::figure::Figure;
use crate::error::{Error, Result};

use super::agent::{Agent, Kind, Tools, restore};
use super::ground::Ground;
use super::writer;

const DATABASE_BYTES: u64 = 10 << 20;
const RATE: u32 = 300;
/// With nothing, all of it is lost.
const KINDS: [Kind; 3] = [Kind::Vault, Kind::Litestream, Kind::Backups];
const PROMISED: Duration = Duration::from_millis(250);

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Figure>> {
    let mut losses: [Vec<Duration>; 3] = Default::default();
    let tools = Tools::ready(setting)?;
    for round in 0..setting.runs {
        for (kind, losses) in KINDS.into_iter().zip(&mut losses) {
            losses.push(once(&tools, kind, round)?);
        }
    }
    let worst = |losses: &[Duration]| losses.iter().max().copied().unwrap_or_default().as_secs_f64();
    let [ours, theirs, copies] = &losses;
    let ratio = worst(ours) / worst(theirs).max(f64::MIN_POSITIVE);
    Ok(vec![
        Figure::times("lost by the vault after SIGKILL of it and of the writer, 300 tx/s", ours)
            .promised(PROMISED.as_secs_f64()),
        Figure::times("lost by litestream 0.3.13", theirs),
        Figure::times("lost by `.backup`, a second after the last", copies),
        Figure::times("worst of the vault, to the worst of litestream", ours)
            .compared(Some(ratio))
            .promised_ratio_at_most(0.5),
    ])
}

fn once(tools: &Tools, kind: Kind, round: u32) -> Result<Duration> {
    let ground = Ground::new(DATABASE_BYTES)?;
    let mut agent = Agent::start(tools, kind, &ground)?;
    let mut writer = writer::start(&ground.database(), RATE, 60)?;
    // At a moment that has nothing to do with anybody's ticks.
    let milliseconds = 1500 + u64::from(round) * 7919 % 1733;
    std::thread::sleep(Duration::from_millis(milliseconds));
    let _ = writer.kill();
    agent.kill();
    let _ = writer.wait();
    restore(tools, kind, &ground, "restored.db")?;
    let (restored, rows, is_sound) = writer::newest(&ground.path("restored.db"))?;
    let (live, all, _) = writer::newest(&ground.database())?;
    if !is_sound || rows > all {
        return Err(Error::Check(format!(
            "{} restored {rows} of {all} rows, sound: {is_sound}",
            kind.name()
        )));
    }
    Ok(live.saturating_sub(restored))
}
