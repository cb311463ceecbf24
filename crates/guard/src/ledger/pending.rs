//! What is not on the disk yet: a moment's worth while all is well, and the guard's whole memory while it is not.

use std::collections::{BTreeMap, VecDeque};

use super::rollup::Minute;
use crate::records::{EventRecord, Evidence, IncidentRecord};

/// Events kept while they cannot be written; the oldest go first. About 1 kB each.
pub(super) const EVENTS_MAX: usize = 4096;
pub(super) const INCIDENTS_MAX: usize = 100;
/// Of those, incidents that keep their evidence, which can be 300 kB.
pub(super) const EVIDENCE_MAX: usize = 16;
pub(super) const MINUTES_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) events: VecDeque<EventRecord>,
    /// By number; each is the whole record as it is now, so several changes become one write.
    pub(super) incidents: BTreeMap<u64, IncidentRecord>,
    pub(super) minutes: VecDeque<Minute>,
    /// The numbers have grown since they were last written.
    pub(super) numbers: bool,
}

impl Pending {
    /// Minutes are not counted: they wait for company.
    pub(super) fn is_urgent(&self) -> bool {
        !self.events.is_empty() || !self.incidents.is_empty() || self.numbers
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.is_urgent() && self.minutes.is_empty()
    }

    /// This and what follows return how many records had to go to make room.
    pub(super) fn event(&mut self, event: EventRecord) -> u64 {
        self.events.push_back(event);
        trim(&mut self.events, EVENTS_MAX)
    }

    pub(super) fn minutes(&mut self, minutes: impl IntoIterator<Item = Minute>) -> u64 {
        self.minutes.extend(minutes);
        trim(&mut self.minutes, MINUTES_MAX)
    }

    pub(super) fn incident(&mut self, incident: IncidentRecord) -> u64 {
        let before = self.incidents.remove(&incident.id);
        self.incidents.insert(incident.id, merged(before, incident));
        self.bound_incidents()
    }

    /// Takes back what could not be written. What has come since is newer.
    pub(super) fn put_back(&mut self, unwritten: Self) -> u64 {
        let Self { mut events, incidents, mut minutes, numbers } = unwritten;
        events.append(&mut self.events);
        minutes.append(&mut self.minutes);
        (self.events, self.minutes) = (events, minutes);
        self.numbers |= numbers;
        for (id, before) in incidents {
            match self.incidents.remove(&id) {
                Some(newer) => self.incidents.insert(id, merged(Some(before), newer)),
                None => self.incidents.insert(id, before),
            };
        }
        trim(&mut self.events, EVENTS_MAX) + trim(&mut self.minutes, MINUTES_MAX) + self.bound_incidents()
    }

    fn bound_incidents(&mut self) -> u64 {
        let mut dropped = 0;
        while self.incidents.len() > INCIDENTS_MAX {
            self.incidents.pop_first();
            dropped += 1;
        }
        let with_evidence = self.incidents.values_mut().rev().filter_map(|it| it.evidence.as_mut());
        for evidence in
            with_evidence.filter(|it| !it.samples.is_empty() || !it.log_tail.is_empty()).skip(EVIDENCE_MAX)
        {
            let missing = vec!["all of it: the ledger could not be written and memory was needed".to_owned()];
            let (taken, took_ms) = (evidence.taken, evidence.took_ms);
            *evidence = Evidence { taken, took_ms, missing, ..Evidence::default() };
            dropped += 1;
        }
        dropped
    }
}

/// The newer record; evidence that was there stays.
pub(super) fn merged(before: Option<IncidentRecord>, mut newer: IncidentRecord) -> IncidentRecord {
    if newer.evidence.is_none() {
        newer.evidence = before.and_then(|it| it.evidence);
    }
    newer
}

fn trim<T>(queue: &mut VecDeque<T>, max: usize) -> u64 {
    let over = queue.len().saturating_sub(max);
    queue.drain(..over);
    u64::try_from(over).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn incident(id: u64, with_evidence: bool) -> IncidentRecord {
        let evidence = with_evidence
            .then(|| Evidence { log_tail: vec!["last words".to_owned()], ..Evidence::default() });
        IncidentRecord {
            id,
            service: "reports".to_owned(),
            instance: None,
            opened: Timestamp::UNIX_EPOCH,
            closed: None,
            layer: None,
            summary: String::new(),
            causes: Vec::new(),
            action: None,
            dark_ms: None,
            requests: None,
            evidence,
        }
    }

    #[test]
    fn memory_is_bounded_and_what_is_lost_is_counted() {
        let mut pending = Pending::default();
        let dropped: u64 = (1..=150).map(|id| pending.incident(incident(id, true))).sum();
        assert_eq!(pending.incidents.len(), INCIDENTS_MAX);
        let full = pending
            .incidents
            .values()
            .filter(|it| it.evidence.as_ref().is_some_and(|evidence| !evidence.log_tail.is_empty()));
        assert_eq!(full.map(|it| it.id).collect::<Vec<_>>(), (135..=150).collect::<Vec<_>>());
        assert_eq!(dropped, 50 + 134);
    }

    #[test]
    fn what_is_put_back_comes_before_what_has_come_since() {
        let mut pending = Pending::default();
        pending.incident(incident(7, false));
        let mut unwritten = Pending::default();
        unwritten.incident(incident(7, true));
        unwritten.incident(incident(6, false));
        pending.put_back(unwritten);
        assert_eq!(pending.incidents.keys().copied().collect::<Vec<_>>(), [6, 7]);
        assert!(pending.incidents[&7].evidence.is_some());
    }
}
