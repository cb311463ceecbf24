//! The hashes of all pages as they were shipped: what was saved of them, brought up to date by what the store has.

use crate::error::{Error, Result};
use crate::pack;
use crate::page_hash::PageHash;
use crate::plan::{self, Bound};
use crate::position::{Position, Tx};
use crate::segment::{Follower, SegmentError};
use crate::shipper::Common;
use crate::state::State;
use crate::table::Table;

/// As of `position`. None where that cannot be found out.
pub(crate) fn at(common: &Common, state: &State, position: Position) -> Result<Option<Table>> {
    let Some((mut table, saved)) = Table::load(&state.table())? else { return Ok(None) };
    let reached = follow(common, &mut table, saved, position.tx)?;
    Ok((reached == position).then_some(table))
}

/// As of the last that was ever shipped, and which that is: `least`, or what the store has beyond. None where that cannot
/// be found out.
pub(crate) fn all(common: &Common, state: &State, least: Position) -> Result<Option<(Table, Position)>> {
    let Some((mut table, saved)) = Table::load(&state.table())? else { return Ok(None) };
    let reached = match follow(common, &mut table, saved, Tx(u64::MAX)) {
        // A store that is away is believed to have no more than this.
        Err(error) if !error.is_refusal() && saved == least => return Table::load(&state.table()),
        reached => reached?,
    };
    let is_enough = reached == least || (reached.epoch, reached.tx) > (least.epoch, least.tx);
    Ok(is_enough.then_some((table, reached)))
}

/// Goes from `from` to `upto`, or as far as it leads; where that is.
fn follow(common: &Common, table: &mut Table, from: Position, upto: Tx) -> Result<Position> {
    if from.tx >= upto {
        return Ok(from);
    }
    let mut follower = Follower::new(from);
    for step in plan::follow(&common.outbox.segments()?, from.epoch, from.tx, upto) {
        let Bound::Tx(upto) = step.bound else { continue };
        let name = step.segment.to_string();
        let stored = common.outbox.get_checked(&name, step.segment.hash)?;
        let segment = pack::open(&common.seal, &stored, &name)?;
        let done = follower.follow::<SegmentError>(&segment, upto, |frame| {
            table.set(frame.page, PageHash::of(frame.data));
            if frame.commit_pages > 0 {
                table.resize(frame.commit_pages);
            }
            Ok(())
        });
        done.map_err(|source| Error::Segment { name, source })?;
    }
    Ok(follower.position())
}
