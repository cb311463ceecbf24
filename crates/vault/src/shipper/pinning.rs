//! A reader that stands exactly where the copying stands.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::image::Pin;
use crate::leap::Reader;
use crate::state::State;
use crate::table::Table;
use crate::tail::Committed;
use crate::wal::Header;

use super::Shipper;

/// Looks for a moment in which nobody commits, before the write lock is taken for one.
const PIN_TRIES: u32 = 5;
/// So often all of that is done: some seconds.
const PIN_ROUNDS: u32 = 40;

impl Shipper {
    /// A reader at exactly the position that was copied, for a snapshot; and the table as of there. Without a table, the
    /// snapshot's scan becomes one.
    pub fn pin(&mut self, state: &State) -> Result<(Pin, Option<Table>)> {
        let pin = self.pin_after(|shipper| shipper.copy(shipper.look()?, &mut Vec::new()).map(drop))?;
        self.remember(state)?;
        Ok((pin, self.begin_changes()))
    }

    /// Looks for a moment in which nobody commits; where there is none, makes one.
    pub(super) fn pin_after(&mut self, catch_up: impl Fn(&mut Self) -> Result<()>) -> Result<Pin> {
        for _ in 0..PIN_ROUNDS {
            for _ in 0..PIN_TRIES {
                catch_up(self)?;
                if let Some(pin) = self.try_pin()? {
                    return Ok(pin);
                }
            }
            if self.leap.lock()? {
                let pin = catch_up(self).and_then(|()| self.try_pin());
                self.leap.unlock()?;
                if let Some(pin) = pin? {
                    return Ok(pin);
                }
            }
            // Whoever has the lock may be waiting for our mark to move on.
            catch_up(self)?;
            self.move_on()?;
        }
        let why = "it is written to without a pause".to_owned();
        Err(Error::Unfit { path: self.database.path.clone(), why })
    }

    fn begin_changes(&mut self) -> Option<Table> {
        if self.table.is_none() {
            self.changes = Some(HashMap::new());
        }
        self.table.clone()
    }

    /// A reader opened while nothing was committed stands where we stand.
    fn try_pin(&mut self) -> Result<Option<Pin>> {
        let before = self.standing()?;
        let Some(before) = before else { return Ok(None) };
        let reader = Reader::begin(&self.database, self.database.connect()?)?;
        if self.standing()?.map(|it| (it.0, it.1.frames)) != Some((before.0, before.1.frames)) {
            return Ok(None);
        }
        let (header, committed) = before;
        let in_file = committed.frames == committed.backfilled;
        let log = header.filter(|_| !in_file).map(|header| (header, committed.frames));
        Ok(Some(Pin { reader, position: self.builder.position(), log }))
    }

    /// What is committed, if it is what we have.
    fn standing(&self) -> Result<Option<(Option<Header>, Committed)>> {
        let header = self.tail.header()?;
        let committed = self.tail.committed(&self.leap.counter)?;
        let is_same = match &self.walker {
            Some(walker) if header == Some(walker.header) => {
                // Begun again and not written to: all of it is in the file.
                committed.frames == walker.frames || committed.frames == 0
            }
            Some(_) => header.is_none() && committed.frames == 0,
            None => committed.frames == 0,
        };
        Ok((is_same && self.tail.header()? == header).then_some((header, committed)))
    }
}
