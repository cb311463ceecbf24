//! Numbers that go on over a restart of the guard: incidents, and instances per service.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// The next free numbers. They only ever grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) incident: u64,
    pub(super) instances: BTreeMap<String, u64>,
    /// For a service that is not in `instances`.
    pub(super) instance_first: u64,
}

impl Numbers {
    /// For a ledger that has nothing in it yet.
    pub(super) fn new() -> Self {
        Self { incident: 1, instances: BTreeMap::new(), instance_first: 1 }
    }

    /// For when the ledger cannot tell: seconds since 1970 are past anything that was counted up from 1, unless a
    /// service was started more than once a second all its life.
    pub(super) fn from_time(now: Timestamp) -> Self {
        let first = u64::try_from(now.as_second()).unwrap_or(1).max(1);
        Self { incident: first, instances: BTreeMap::new(), instance_first: first }
    }

    pub(super) fn next_instance(&self, service: &str) -> u64 {
        self.instances.get(service).copied().unwrap_or(self.instance_first)
    }

    /// Takes over what another source knows.
    pub(super) fn raise(&mut self, other: &Self) {
        self.incident = self.incident.max(other.incident);
        self.instance_first = self.instance_first.max(other.instance_first);
        for (service, next) in &other.instances {
            self.raise_instance(service, *next);
        }
    }

    /// Returns whether that was news.
    pub(super) fn raise_instance(&mut self, service: &str, next: u64) -> bool {
        match self.instances.get_mut(service) {
            Some(known) if *known >= next => false,
            Some(known) => {
                *known = next;
                true
            }
            None => {
                self.instances.insert(service.to_owned(), next);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_never_go_back() {
        let mut numbers = Numbers::new();
        assert!(numbers.raise_instance("reports", 8));
        assert!(!numbers.raise_instance("reports", 3));
        numbers.raise(&Numbers { incident: 5, ..Numbers::new() });
        assert_eq!(
            (numbers.next_instance("reports"), numbers.next_instance("other"), numbers.incident),
            (8, 1, 5)
        );
    }
}
