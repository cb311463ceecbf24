//! A run from its seed, and what is to be read of one that broke a rule.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher};

use plimsoll_core::units::Instant;
use plimsoll_core::{Action, Event, Planted};

use crate::world::{Deaths, World};

/// So many of the last steps are kept for reading.
const TRACE_MAX: usize = 60;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub checker: &'static str,
    pub what: String,
    /// On the head's clock.
    pub at: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub seed: u64,
    pub steps: u64,
    pub violation: Option<Violation>,
    /// The last steps, oldest first; empty unless traced.
    pub trace: Vec<String>,
    /// Of everything that happened; 0 unless traced.
    pub hash: u64,
    /// How often each kind of record was told, by its name; empty unless traced.
    pub told: std::collections::BTreeMap<&'static str, u64>,
}

/// One world from its seed, with a bug planted in its head or none.
pub fn run(seed: u64, plant: Option<Planted>) -> Outcome {
    play(seed, plant, Deaths::None, Trace::off())
}

/// The same, kept for reading; slower.
pub fn run_traced(seed: u64, plant: Option<Planted>) -> Outcome {
    play(seed, plant, Deaths::None, Trace::on())
}

/// One world in which the guard itself is killed.
pub fn run_with_deaths(seed: u64, plant: Option<Planted>, deaths: Deaths, traced: bool) -> Outcome {
    play(seed, plant, deaths, if traced { Trace::on() } else { Trace::off() })
}

/// What to type to see a failing seed again.
pub fn replay_line(seed: u64) -> String {
    format!("PLIMSOLL_SEED={seed} cargo test -p plimsoll-sim replay -- --nocapture")
}

fn play(seed: u64, plant: Option<Planted>, deaths: Deaths, trace: Trace) -> Outcome {
    let mut world = World::new(seed, plant, trace);
    world.deaths = deaths;
    let violation = world.run().err();
    let trace = std::mem::take(&mut world.trace);
    Outcome {
        seed,
        steps: world.steps,
        violation,
        hash: trace.hash.finish(),
        told: trace.told,
        trace: trace.cast.into_iter().chain(trace.lines).collect(),
    }
}

/// The last steps as text, and a hash of all of them.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    on: bool,
    /// The services as drawn.
    cast: Vec<String>,
    lines: VecDeque<String>,
    hash: DefaultHasher,
    told: std::collections::BTreeMap<&'static str, u64>,
}

impl Trace {
    fn off() -> Self {
        Self::default()
    }

    fn on() -> Self {
        Self { on: true, ..Self::default() }
    }

    pub(crate) fn introduce(&mut self, who: impl FnOnce() -> String) {
        if self.on {
            self.cast.push(who());
        }
    }

    pub(crate) fn note(&mut self, now: Instant, text: impl FnOnce() -> String) {
        if self.on {
            let line = format!("{} {}", time(now), text());
            self.keep(line);
        }
    }

    pub(crate) fn step(&mut self, now: Instant, event: Option<&Event>, actions: &[Action]) {
        if !self.on {
            return;
        }
        let mut line = match event {
            Some(event) => format!("{} {event:?}", time(now)),
            None => format!("{} due", time(now)),
        };
        for action in actions {
            if let Action::Tell(record) = action {
                *self.told.entry(record.kind.name()).or_default() += 1;
            }
            let _ = write!(line, "\n             -> {action:?}");
        }
        if is_quiet(event, actions) {
            self.hash.write(line.as_bytes());
        } else {
            self.keep(shortened(&line));
        }
    }

    fn keep(&mut self, line: String) {
        self.hash.write(line.as_bytes());
        if self.lines.len() == TRACE_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

fn time(now: Instant) -> String {
    format!("{:>8}.{:06}", now.0 / 1_000_000_000, now.0 / 1000 % 1_000_000)
}

/// Measuring that leads to nothing would push everything worth reading out of the trace.
fn is_quiet(event: Option<&Event>, actions: &[Action]) -> bool {
    let measured = matches!(event, Some(Event::Sampled { .. } | Event::InFlight { .. }) | None);
    measured && actions.iter().all(|action| matches!(action, Action::Sample { .. }))
}

/// `InstanceId { service: ServiceId(0), number: 7 }` reads `s0.7`, and the like.
fn shortened(line: &str) -> String {
    let mut text = line.replace("InstanceId { service: ServiceId(", "s");
    while let Some(at) = text.find("), number: ") {
        let end = at + text[at..].find(" }").map_or(0, |length| length);
        let number = text[at + "), number: ".len()..end].to_owned();
        text.replace_range(at..end + " }".len(), &format!(".{number}"));
    }
    text.replace("Record { service: ServiceId(", "{ s").replace("instance: Some(", "(")
}
