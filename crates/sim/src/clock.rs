//! Time that jumps to whatever happens next.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_core::units::Instant;

/// What the world has yet to do, in order of time and then of planning.
#[derive(Debug)]
pub(crate) struct Agenda<T> {
    items: BTreeMap<(Instant, u64), T>,
    planned: u64,
}

impl<T> Agenda<T> {
    pub(crate) fn new() -> Self {
        Self { items: BTreeMap::new(), planned: 0 }
    }

    pub(crate) fn plan(&mut self, at: Instant, item: T) {
        self.planned += 1;
        self.items.insert((at, self.planned), item);
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.items.first_key_value().map(|((at, _), _)| *at)
    }

    /// Forgets what is not to happen after all.
    pub(crate) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.items.retain(|_, item| keep(item));
    }

    pub(crate) fn take(&mut self) -> Option<(Instant, T)> {
        self.items.pop_first().map(|((at, _), item)| (at, item))
    }
}

/// The two clocks: the world's, and the head's, which a step can set ahead.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    pub(crate) world: Instant,
    ahead: Duration,
}

impl Clock {
    /// What the driver tells the head.
    pub(crate) fn head(&self) -> Instant {
        self.world + self.ahead
    }

    /// Where on the world's clock a deadline of the head falls; never in the past.
    pub(crate) fn to_world(&self, deadline: Instant) -> Instant {
        self.world + deadline.since(self.head())
    }

    pub(crate) fn step(&mut self, by: Duration) {
        self.ahead += by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_at_one_instant_happen_in_the_order_they_were_planned() {
        let mut agenda = Agenda::new();
        agenda.plan(Instant(5), 'b');
        agenda.plan(Instant(5), 'c');
        agenda.plan(Instant(1), 'a');
        let order: String = std::iter::from_fn(|| agenda.take()).map(|(_, item)| item).collect();
        assert_eq!(order, "abc");
    }

    #[test]
    fn a_step_brings_the_heads_deadlines_closer() {
        let mut clock = Clock::default();
        let deadline = Instant(10_000_000_000);
        clock.step(Duration::from_secs(4));
        assert_eq!(clock.to_world(deadline), Instant(6_000_000_000));
        clock.step(Duration::from_secs(40));
        assert_eq!(clock.to_world(deadline), clock.world);
    }
}
