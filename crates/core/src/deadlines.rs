//! The one table of deadlines.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::ids::{InstanceId, ServiceId};
use crate::units::Instant;

/// What is due. A key has at most one deadline at a time; setting it again moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// Measure the instance.
    Sample(InstanceId),
    /// Probe it, or give up on an outstanding probe.
    Probe(InstanceId),
    /// It had its start period.
    Started(InstanceId),
    /// The present stage of its leaving is over.
    Stage(InstanceId),
    /// Try the slot's lead again.
    Lead(ServiceId, u16),
    /// Try the slot's successor or spare again.
    Relief(ServiceId, u16),
    /// The service has been well long enough for its incident to be over.
    Calm(ServiceId),
}

#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    by_time: BTreeSet<(Instant, Due)>,
    by_key: BTreeMap<Due, Instant>,
}

impl Deadlines {
    pub(crate) fn set(&mut self, due: Due, at: Instant) {
        match self.by_key.insert(due, at) {
            Some(before) if before == at => return,
            Some(before) => _ = self.by_time.remove(&(before, due)),
            None => {}
        }
        self.by_time.insert((at, due));
    }

    pub(crate) fn clear(&mut self, due: Due) {
        self.take(due);
    }

    pub(crate) fn get(&self, due: Due) -> Option<Instant> {
        self.by_key.get(&due).copied()
    }

    /// Clears a deadline and says when it would have been.
    pub(crate) fn take(&mut self, due: Due) -> Option<Instant> {
        let at = self.by_key.remove(&due)?;
        self.by_time.remove(&(at, due));
        Some(at)
    }

    pub(crate) fn clear_instance(&mut self, instance: InstanceId) {
        for due in [Due::Sample(instance), Due::Probe(instance), Due::Started(instance), Due::Stage(instance)]
        {
            self.clear(due);
        }
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes the earliest deadline that is due at `now`.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Due> {
        let (at, due) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.clear(due);
        Some(due)
    }

    pub(crate) fn is_set(&self, due: Due) -> bool {
        self.by_key.contains_key(&due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(number: u64) -> Due {
        Due::Sample(InstanceId { service: ServiceId(0), number })
    }

    #[test]
    fn setting_a_deadline_again_moves_it() {
        let mut table = Deadlines::default();
        table.set(due(1), Instant(10));
        table.set(due(1), Instant(20));
        table.set(due(1), Instant(20));
        assert_eq!(table.take_due(Instant(15)), None);
        assert_eq!(table.take_due(Instant(20)), Some(due(1)));
        assert_eq!(table.next(), None);
    }

    #[test]
    fn the_earliest_is_taken_first_and_a_cleared_one_never() {
        let mut table = Deadlines::default();
        table.set(due(1), Instant(30));
        table.set(due(2), Instant(10));
        table.set(due(3), Instant(20));
        table.clear(due(3));
        assert!(!table.is_set(due(3)));
        assert_eq!(table.take_due(Instant(99)), Some(due(2)));
        assert_eq!(table.take_due(Instant(99)), Some(due(1)));
        assert_eq!(table.take_due(Instant(99)), None);
    }
}
