//! All that is known of the show so far. Those who find out write it, the director waits on it, the faces show it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout_at;

use super::event::Event;
use super::fault::Shows;
use super::report::Row;
use super::stage::{DESCRIPTOR_LINE, LINE_MIB, MIB};
use super::tally::Tally;

/// More than the whole show has of either.
const READINGS_MAX: usize = 8192;
const NOTES_MAX: usize = 4096;
const INCIDENTS_MAX: usize = 256;

/// One look at the service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// When it was asked for, so never later than when it was true.
    pub(super) at: Instant,
    pub(super) memory_bytes: Option<u64>,
    pub(super) descriptors: Option<u64>,
}

/// How one layer is enforced here, in the guard's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Enforced {
    pub(super) layer: String,
    pub(super) by: String,
}

/// The service as the guard's status shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) state: String,
    pub(super) instance: Option<String>,
    pub(super) pid: Option<u64>,
    pub(super) enforced: Vec<Enforced>,
}

impl Service {
    pub(super) fn enforced_by(&self, layer: &str) -> Option<&str> {
        self.enforced.iter().find(|row| row.layer == layer).map(|row| row.by.as_str())
    }
}

/// An incident as the guard's events told it.
#[derive(Clone, Debug)]
pub(super) struct Incident {
    id: u64,
    /// Every layer that had a cause for it, with the time at which we were told; the first one opened it.
    pub(super) layers: Vec<(String, Instant)>,
    pub(super) closed: Option<Instant>,
    /// By the guard's own account.
    pub(super) dark: Option<Duration>,
}

/// How a line of the show is meant; faces mark it by word or sign, and by colour beside that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Fault,
    Warning,
    Good,
    Bad,
}

#[derive(Clone, Debug)]
pub(super) struct Note {
    pub(super) at: Duration,
    pub(super) tone: Tone,
    pub(super) text: String,
}

#[derive(Debug)]
pub(super) struct Scene {
    pub(super) started: Instant,
    pub(super) guard_ended: bool,
    pub(super) service: Service,
    pub(super) readings: VecDeque<Reading>,
    pub(super) incidents: Vec<Incident>,
    pub(super) tally: Tally,
    pub(super) notes: Vec<Note>,
    /// The fault being shown, by its place in the list.
    pub(super) act: Option<usize>,
    pub(super) rows: Vec<Row>,
}

impl Scene {
    fn new(now: Instant) -> Self {
        Self {
            started: now,
            guard_ended: false,
            service: Service::default(),
            readings: VecDeque::new(),
            incidents: Vec::new(),
            tally: Tally::new(now),
            notes: Vec::new(),
            act: None,
            rows: Vec::new(),
        }
    }

    pub(super) fn note(&mut self, tone: Tone, text: String) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(Note { at: self.started.elapsed(), tone, text });
        }
    }

    pub(super) fn read(&mut self, reading: Reading) {
        if self.readings.len() == READINGS_MAX {
            self.readings.pop_front();
        }
        self.readings.push_back(reading);
    }

    /// Takes what the guard told just now.
    pub(super) fn told(&mut self, event: &Event, now: Instant) {
        self.grow_incident(event, now);
        if !event.is_quiet() {
            let tone = if event.severity == "info" { Tone::Plain } else { Tone::Warning };
            self.note(tone, format!("{}: {}", event.who, event.message));
        }
    }

    fn grow_incident(&mut self, event: &Event, now: Instant) {
        let Some(id) = event.incident else { return };
        if event.kind == "incident_opened" && self.incidents.len() < INCIDENTS_MAX {
            self.incidents.push(Incident { id, layers: Vec::new(), closed: None, dark: None });
        }
        let Some(incident) = self.incidents.iter_mut().find(|incident| incident.id == id) else { return };
        match &event.layer {
            Some(layer) if incident.layers.iter().all(|(known, _)| known != layer) => {
                incident.layers.push((layer.clone(), now));
            }
            Some(_) | None => {}
        }
        if event.kind == "incident_closed" {
            incident.closed = Some(now);
            incident.dark = event.dark_ms.map(Duration::from_millis);
            // Whether the service answers again is to be seen from here on.
            self.tally.break_streak();
        }
    }

    /// The incident that has not been closed.
    pub(super) fn open_incident(&self) -> Option<&Incident> {
        self.incidents.iter().rev().find(|incident| incident.closed.is_none())
    }

    /// From when on a fault that was injected at `injected` could be detected, given that it was by `detected`: the
    /// last look that found the service still within its line.
    pub(super) fn onset(&self, shows: Shows, injected: Instant, detected: Instant) -> Instant {
        let within = |reading: &&Reading| match shows {
            Shows::AtOnce => false,
            Shows::OverMemoryLine => reading.memory_bytes.is_some_and(|bytes| bytes <= LINE_MIB * MIB),
            Shows::AtDescriptorLine => reading.descriptors.is_some_and(|count| count < DESCRIPTOR_LINE),
        };
        let mut looks = self.readings.iter().filter(|reading| (injected..=detected).contains(&reading.at));
        looks.rfind(within).map_or(injected, |reading| reading.at)
    }
}

/// Why a wait ended without what was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missed {
    TooLate,
    GuardEnded,
}

#[derive(Debug)]
pub(super) struct Board {
    scene: RefCell<Scene>,
    changed: watch::Sender<()>,
}

impl Board {
    pub(super) fn new() -> Self {
        Self { scene: RefCell::new(Scene::new(Instant::now())), changed: watch::Sender::new(()) }
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&Scene) -> T) -> T {
        look(&self.scene.borrow())
    }

    pub(super) fn write<T>(&self, write: impl FnOnce(&mut Scene) -> T) -> T {
        let result = write(&mut self.scene.borrow_mut());
        self.changed.send_replace(());
        result
    }

    pub(super) fn note(&self, tone: Tone, text: String) {
        self.write(|scene| scene.note(tone, text));
    }

    /// Tells of every change, and nothing but that there was one.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Waits until `condition` holds. Whatever happens meanwhile wakes it.
    pub(super) async fn until(
        &self,
        deadline: Instant,
        condition: impl Fn(&Scene) -> bool,
    ) -> Result<(), Missed> {
        let mut changes = self.changed.subscribe();
        loop {
            if self.look(&condition) {
                return Ok(());
            }
            if self.look(|scene| scene.guard_ended) {
                return Err(Missed::GuardEnded);
            }
            match timeout_at(deadline.into(), changes.changed()).await {
                Ok(_) => {}
                Err(_) => return Err(Missed::TooLate),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn event(kind: &str, layer: Option<&str>, incident: u64) -> Event {
        Event {
            kind: kind.to_owned(),
            who: "reports.1".to_owned(),
            layer: layer.map(str::to_owned),
            message: kind.to_owned(),
            severity: "warning".to_owned(),
            incident: Some(incident),
            dark_ms: (kind == "incident_closed").then_some(120),
        }
    }

    #[test]
    fn an_incident_grows_by_its_causes_until_it_is_closed() {
        let now = Instant::now();
        let mut scene = Scene::new(now);
        scene.told(&event("incident_opened", Some("kill_switch"), 4), now);
        scene.told(&event("incident_joined", Some("hard_wall"), 4), now + MS);
        scene.told(&event("incident_joined", Some("hard_wall"), 4), now + MS * 2);
        assert!(scene.open_incident().is_some());
        scene.told(&event("incident_closed", None, 4), now + MS * 3);
        assert!(scene.open_incident().is_none());
        let incident = &scene.incidents[0];
        assert_eq!(incident.layers, [("kill_switch".to_owned(), now), ("hard_wall".to_owned(), now + MS)]);
        assert_eq!(incident.dark, Some(MS * 120));
    }

    #[test]
    fn the_onset_is_the_last_look_within_the_line() {
        let now = Instant::now();
        let mut scene = Scene::new(now);
        for (millis, mib) in [(0, 10), (25, 74), (50, 76), (75, 80)] {
            let memory_bytes = Some(mib * MIB);
            scene.read(Reading { at: now + MS * millis, memory_bytes, descriptors: None });
        }
        assert_eq!(scene.onset(Shows::OverMemoryLine, now, now + MS * 80), now + MS * 25);
        assert_eq!(scene.onset(Shows::AtOnce, now, now + MS * 80), now);
        assert_eq!(scene.onset(Shows::AtDescriptorLine, now, now + MS * 80), now, "nothing was read");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_wait_ends_with_its_condition_its_deadline_or_the_guard() {
        let board = Board::new();
        let soon = Instant::now() + MS * 5;
        assert_eq!(board.until(soon, |scene| scene.act.is_some()).await, Err(Missed::TooLate));
        board.write(|scene| scene.act = Some(0));
        assert_eq!(board.until(soon, |scene| scene.act.is_some()).await, Ok(()));
        board.write(|scene| scene.guard_ended = true);
        assert_eq!(board.until(soon, |_| false).await, Err(Missed::GuardEnded));
    }
}
