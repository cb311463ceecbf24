//! The queue of requests that wait, in the order of their arrival.

use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

use super::{Capacity, Reason};
use crate::planted::Plant;
use crate::units::{Bytes, Instant};

/// A request's name, and its place in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// One request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// When this wait began.
    pub(crate) since: Instant,
    /// How long it had been held before.
    pub(crate) waited: Duration,
    /// What is kept of its body.
    pub(crate) body: Bytes,
}

impl Held {
    pub(crate) const fn arriving(now: Instant, body: Bytes) -> Self {
        Self { since: now, waited: Duration::ZERO, body }
    }

    pub(crate) const fn back(now: Instant, body: Bytes, waited: Duration) -> Self {
        Self { since: now, waited, body }
    }

    /// All of its waits together may take `hold_wait`.
    pub(crate) fn deadline(&self, hold_wait: Duration) -> Instant {
        self.since + hold_wait.saturating_sub(self.waited)
    }

    pub(crate) fn waited_at(&self, now: Instant) -> Duration {
        self.waited + now.since(self.since)
    }
}

/// Ordered by ticket; a second order by deadline.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    by_ticket: BTreeMap<Ticket, (Held, Instant)>,
    by_deadline: BTreeSet<(Instant, Ticket)>,
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_ticket.is_empty()
    }

    /// Whether nobody in the line has come before this one.
    pub(crate) fn is_first(&self, ticket: Ticket) -> bool {
        self.by_ticket.first_key_value().is_none_or(|(first, _)| ticket < *first)
    }

    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.by_ticket.len()).unwrap_or(u32::MAX)
    }

    /// Takes a place in the line, or says what is full.
    pub(crate) fn push(
        &mut self,
        capacity: &mut Capacity,
        ticket: Ticket,
        held: Held,
        plant: Plant,
    ) -> Result<(), Reason> {
        // A ticket is in the line once; a second entry would be answered twice.
        self.remove(capacity, ticket);
        capacity.take(held.body, plant)?;
        let deadline = held.deadline(capacity.config.hold_wait);
        self.by_deadline.insert((deadline, ticket));
        self.by_ticket.insert(ticket, (held, deadline));
        Ok(())
    }

    /// The one that has waited longest.
    pub(crate) fn pop(&mut self, capacity: &mut Capacity) -> Option<(Ticket, Held)> {
        let ticket = *self.by_ticket.first_key_value()?.0;
        self.remove(capacity, ticket).map(|held| (ticket, held))
    }

    /// The one that has waited least: a mistake, for the simulator's own test.
    pub(crate) fn pop_newest(&mut self, capacity: &mut Capacity) -> Option<(Ticket, Held)> {
        let ticket = *self.by_ticket.last_key_value()?.0;
        self.remove(capacity, ticket).map(|held| (ticket, held))
    }

    pub(crate) fn remove(&mut self, capacity: &mut Capacity, ticket: Ticket) -> Option<Held> {
        let (held, deadline) = self.by_ticket.remove(&ticket)?;
        self.by_deadline.remove(&(deadline, ticket));
        capacity.give_back(held.body);
        Some(held)
    }

    /// One that has waited for as long as it may.
    pub(crate) fn pop_expired(&mut self, capacity: &mut Capacity, now: Instant) -> Option<(Ticket, Held)> {
        let (deadline, ticket) = *self.by_deadline.first()?;
        if deadline > now {
            return None;
        }
        self.remove(capacity, ticket).map(|held| (ticket, held))
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.by_deadline.first().map(|(at, _)| *at)
    }
}
