//! The gate, event by event.

mod holding;
mod instances;
mod replaying;

use alloc::vec::Vec;
use core::time::Duration;

use super::*;

const SERVICE: ServiceId = ServiceId(0);
const NONE: Bytes = Bytes::ZERO;
const DRAIN: Duration = Duration::from_secs(10);
const HANG: Duration = Duration::from_secs(2);

const fn id(number: u64) -> InstanceId {
    InstanceId { service: SERVICE, number }
}

/// A gate with a clock, and what it wants done.
struct World {
    gate: Gate,
    now: Instant,
}

impl World {
    fn with(config: GateConfig) -> Self {
        let mut gate = Gate::new(config);
        gate.add(SERVICE, HANG);
        let now = Instant(1_000_000_000);
        gate.stand(now, SERVICE, Standing::Expected { not_before: None });
        Self { gate, now }
    }

    fn new() -> Self {
        Self::with(GateConfig::default())
    }

    /// One instance, admitted before anybody waits.
    fn with_instances(count: u64) -> Self {
        let mut world = Self::new();
        for number in 1..=count {
            world.admit(number);
        }
        world
    }

    fn admit(&mut self, number: u64) {
        self.gate.admit(self.now, id(number));
    }

    fn arrive(&mut self) -> (Ticket, Answer) {
        self.gate.arrive(self.now, SERVICE, NONE, 0)
    }

    /// Arrives, and has to wait.
    fn wait(&mut self) -> Ticket {
        let (ticket, answer) = self.arrive();
        assert_eq!(answer, Answer::Held);
        ticket
    }

    /// Arrives, and is sent.
    fn go(&mut self) -> u64 {
        let (_, Answer::Go { instance }) = self.arrive() else { panic!("it should go") };
        instance.number
    }

    fn done(&mut self, number: u64, outcome: Outcome) {
        self.gate.done(self.now, id(number), Phase::Waiting, outcome);
    }

    fn serve(&mut self, number: u64) {
        self.gate.answered(self.now, id(number));
        self.gate.done(self.now, id(number), Phase::Answering, Outcome::Served);
    }

    /// A request on this instance becomes a stream.
    fn stream(&mut self, number: u64) {
        self.gate.answered(self.now, id(number));
        self.gate.streams(self.now, id(number));
    }

    fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
    }

    /// Goes on to the next deadline; how long that took.
    fn next(&mut self) -> Duration {
        let at = self.gate.next_deadline().expect("something is due");
        let span = at.since(self.now);
        self.now = self.now.max(at);
        self.gate.handle_deadline(self.now);
        let again = self.gate.next_deadline();
        assert!(again.is_none_or(|at| at > self.now), "due again at once");
        span
    }

    fn actions(&mut self) -> Vec<GateAction> {
        core::iter::from_fn(|| self.gate.next_action()).collect()
    }

    fn released(&mut self) -> Vec<Ticket> {
        let release = |action| match action {
            GateAction::Release { ticket, .. } => Some(ticket),
            GateAction::Refuse { .. }
            | GateAction::InFlight { .. }
            | GateAction::Stalled { .. }
            | GateAction::CloseStreams { .. }
            | GateAction::Tell { .. } => None,
        };
        self.actions().into_iter().filter_map(release).collect()
    }

    fn refused(&mut self) -> Vec<(Ticket, Refusal)> {
        let refuse = |action| match action {
            GateAction::Refuse { ticket, refusal } => Some((ticket, refusal)),
            GateAction::Release { .. }
            | GateAction::InFlight { .. }
            | GateAction::Stalled { .. }
            | GateAction::CloseStreams { .. }
            | GateAction::Tell { .. } => None,
        };
        self.actions().into_iter().filter_map(refuse).collect()
    }

    fn reason(&mut self) -> Reason {
        let (_, Answer::Refused(refusal)) = self.arrive() else { panic!("it should be refused") };
        refusal.reason
    }

    fn traffic(&self) -> ServiceTraffic {
        self.gate.traffic(SERVICE).expect("the service is known")
    }
}
