//! What a head leaves to the next one: facts and promises of every service, without what can be measured again.
//!
//! Times are points on the driver's clock, which goes on over the end of a guard. Nothing in here is needed to keep an
//! instance alive: what cannot be read is done without, and [`crate::Head::adopt`] takes over what runs all the same.

mod book;
mod codec;

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::event::Exit;
use crate::instance::{Doom, Life, Role};
use crate::units::{Bytes, Instant};
use crate::view::Intent;

pub use book::Book;
pub use codec::Unreadable;

/// The head as of one moment. [`Saved::encode`] and [`Saved::decode`] are its only way in and out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    pub(crate) next_incident: u64,
    pub(crate) services: Vec<SavedService>,
}

impl Saved {
    pub fn service(&self, name: &str) -> Option<&SavedService> {
        self.services.iter().find(|it| it.name == name)
    }

    /// The first incident number that was not given yet.
    pub const fn next_incident(&self) -> u64 {
        self.next_incident
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, in any combination")]
pub struct SavedService {
    pub(crate) name: String,
    pub(crate) intent: Intent,
    pub(crate) next_number: u64,
    pub(crate) recycles: u64,
    pub(crate) restarts: u64,
    pub(crate) dark_since: Option<Instant>,
    pub(crate) dark_total: Duration,
    pub(crate) was_lit: bool,
    pub(crate) boot_time: Duration,
    pub(crate) line_refusal_told: bool,
    pub(crate) stop_told: bool,
    pub(crate) budget_spent: Vec<Instant>,
    pub(crate) budget_paged: bool,
    pub(crate) slots: Vec<SavedSlot>,
    pub(crate) incident: Option<SavedIncident>,
    pub(crate) calm_due: Option<Instant>,
    pub(crate) instances: Vec<SavedInstance>,
}

impl SavedService {
    /// The number of the incident that is open, if one is.
    pub fn incident(&self) -> Option<u64> {
        self.incident.as_ref().map(|it| it.id)
    }

    /// Whether it was decided that this instance is to be replaced, once its turn comes.
    pub fn is_doomed(&self, number: u64) -> bool {
        self.instances.iter().any(|it| it.number == number && it.doom.is_some())
    }

    /// Whether this instance's end has been dealt with already.
    pub fn has_exited(&self, number: u64) -> bool {
        self.instances.iter().any(|it| it.number == number && it.exit.is_some())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SavedSlot {
    pub(crate) streak: u32,
    pub(crate) relief_streak: u32,
    pub(crate) lead_failures: u32,
    pub(crate) relief_failures: u32,
    pub(crate) lead_due: Option<Instant>,
    pub(crate) relief_due: Option<Instant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SavedIncident {
    pub(crate) id: u64,
    pub(crate) opened: Instant,
    pub(crate) dark_before: Duration,
    pub(crate) causes: Vec<(u64, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SavedInstance {
    pub(crate) number: u64,
    pub(crate) slot: u16,
    pub(crate) role: Role,
    pub(crate) life: Life,
    pub(crate) doom: Option<Doom>,
    pub(crate) exit: Option<Exit>,
    pub(crate) first_ready: Option<Instant>,
    pub(crate) left: Option<Instant>,
    pub(crate) admitted: bool,
    pub(crate) baseline: Option<Bytes>,
    /// Of the present stage of its leaving.
    pub(crate) stage_due: Option<Instant>,
    pub(crate) probe_due: Option<Instant>,
}
