//! Whatever comes in whatever order: each request is answered once, in its turn and in its time, and the gate comes to
//! rest when driven by its own deadlines alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plimsoll_core::gate::{
    Answer, Back, Gate, GateAction, GateConfig, Outcome, Phase, Plea, Reach, Reason, Refusal, Ruling,
    Standing, Ticket,
};
use plimsoll_core::units::{Bytes, Instant};
use plimsoll_core::{InstanceId, ServiceId};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

const SERVICES: u32 = 2;
const HANG: Duration = Duration::from_millis(700);
/// More deadlines than all waits, windows, pauses and streams of one run can have.
const DEADLINES_MAX: usize = 5000;

#[derive(Clone, Debug)]
enum Input {
    Arrive {
        service: u32,
        body: u64,
        draw: u32,
        times: u8,
    },
    Left(usize),
    Answered(usize),
    Streams(usize),
    Done(usize, Outcome),
    Admit(InstanceId),
    Withdraw(InstanceId, Duration),
    Forget(InstanceId),
    Stand(u32, Option<u64>),
    Configure(GateConfig),
    /// From deadline to deadline, as a driver does that is never late.
    Pass(Duration),
    /// At once, as after a freeze.
    Jump(Duration),
}

fn input() -> impl Strategy<Value = Input> {
    let instance = (0..SERVICES, 1u64..6)
        .prop_map(|(service, number)| InstanceId { service: ServiceId(service), number });
    let outcome = prop_oneof![
        4 => Just(Outcome::Served),
        2 => Just(Outcome::Unreachable),
        3 => Just(Outcome::Lost),
        1 => Just(Outcome::TimedOut),
        1 => Just(Outcome::Left),
    ];
    let one = any::<prop::sample::Index>().prop_map(|index| index.index(1 << 16));
    prop_oneof![
        10 => (0..SERVICES, 0u64..60, any::<u32>(), 1u8..12)
            .prop_map(|(service, body, draw, times)| Input::Arrive { service, body, draw, times }),
        2 => one.clone().prop_map(Input::Left),
        3 => one.clone().prop_map(Input::Answered),
        2 => one.clone().prop_map(Input::Streams),
        10 => (one, outcome).prop_map(|(one, outcome)| Input::Done(one, outcome)),
        5 => instance.clone().prop_map(Input::Admit),
        2 => (instance.clone(), 0u64..4000).prop_map(|(id, ms)| Input::Withdraw(id, Duration::from_millis(ms))),
        1 => instance.prop_map(Input::Forget),
        1 => (0..SERVICES, proptest::option::weighted(0.8, 0u64..9000)).prop_map(|(id, at)| Input::Stand(id, at)),
        1 => config().prop_map(Input::Configure),
        6 => (0u64..1500).prop_map(|ms| Input::Pass(Duration::from_millis(ms))),
        1 => (0u64..9000).prop_map(|ms| Input::Jump(Duration::from_millis(ms))),
    ]
}

fn config() -> impl Strategy<Value = GateConfig> {
    (0u64..6000, 0u32..40, 0u64..400, 0u32..12).prop_map(|(wait, requests, bytes, in_flight_max)| {
        GateConfig {
            hold_wait: Duration::from_millis(wait),
            hold_requests: requests,
            hold_bytes: Bytes(bytes),
            in_flight_max,
        }
    })
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Held { until: Instant },
    Sent { instance: InstanceId, phase: Phase },
}

#[derive(Clone, Copy, Debug)]
struct Request {
    service: ServiceId,
    body: Bytes,
    waited: Duration,
    since: Instant,
    deaths: u8,
    place: Place,
}

struct Model {
    gate: Gate,
    now: Instant,
    config: GateConfig,
    /// The widest that were ever allowed: what waits already may stay.
    widest: (u32, Bytes),
    open: BTreeMap<Ticket, Request>,
    /// False: withdrawn.
    instances: BTreeMap<InstanceId, bool>,
    gone: BTreeSet<InstanceId>,
    standing: [Standing; SERVICES as usize],
}

impl Model {
    fn new(config: GateConfig) -> Self {
        let mut gate = Gate::new(config);
        for service in 0..SERVICES {
            gate.add(ServiceId(service), HANG);
        }
        Self {
            gate,
            now: Instant(1_000_000_000),
            config,
            widest: (config.hold_requests, config.hold_bytes),
            open: BTreeMap::new(),
            instances: BTreeMap::new(),
            gone: BTreeSet::new(),
            standing: [Standing::Stopped; SERVICES as usize],
        }
    }

    fn take(&mut self, input: &Input) -> TestCaseResult {
        match *input {
            Input::Arrive { service, body, draw, times } => {
                for turn in 0..times {
                    self.arrive(ServiceId(service), Bytes(body), draw.wrapping_add(u32::from(turn)))?;
                }
            }
            Input::Left(one) => {
                if let Some(ticket) = self.nth(one, |it| matches!(it.place, Place::Held { .. })) {
                    let request = self.open.remove(&ticket).expect("it was found there");
                    self.gate.left(self.now, request.service, ticket);
                }
            }
            Input::Answered(one) => self.move_on(one, Phase::Waiting, Phase::Answering),
            Input::Streams(one) => self.move_on(one, Phase::Answering, Phase::Streaming),
            Input::Done(one, outcome) => {
                if let Some(ticket) = self.nth(one, |it| matches!(it.place, Place::Sent { .. })) {
                    self.done(ticket, outcome)?;
                }
            }
            Input::Admit(id) if self.gone.contains(&id) => {}
            Input::Admit(id) => {
                self.instances.insert(id, true);
                self.gate.admit(self.now, id);
            }
            Input::Withdraw(id, drain) => {
                if let Some(admitted) = self.instances.get_mut(&id) {
                    *admitted = false;
                    let count = self.gate.withdraw(self.now, id, drain);
                    prop_assert_eq!(count, self.in_flight(id));
                }
            }
            Input::Forget(id) => {
                self.instances.remove(&id);
                self.gone.insert(id);
                self.gate.forget(self.now, id);
            }
            Input::Stand(service, at) => {
                let not_before = at.filter(|at| at % 2 == 0).map(|at| self.now + Duration::from_millis(at));
                let standing = at.map_or(Standing::Stopped, |_| Standing::Expected { not_before });
                self.standing[service as usize] = standing;
                self.gate.stand(self.now, ServiceId(service), standing);
            }
            Input::Configure(config) => {
                self.config = config;
                self.widest.0 = self.widest.0.max(config.hold_requests);
                self.widest.1 = self.widest.1.max(config.hold_bytes);
                self.gate.configure(config);
            }
            Input::Pass(span) => {
                let until = self.now + span;
                while let Some(at) = self.gate.next_deadline().filter(|at| *at <= until) {
                    self.due(at)?;
                }
                self.now = until;
            }
            Input::Jump(span) => self.due(self.now + span)?,
        }
        self.settle()
    }

    fn due(&mut self, at: Instant) -> TestCaseResult {
        self.now = self.now.max(at);
        self.gate.handle_deadline(self.now);
        self.settle()?;
        let next = self.gate.next_deadline();
        prop_assert!(next.is_none_or(|at| at > self.now), "due again at once: {next:?} at {:?}", self.now);
        let late =
            self.open.iter().find(|(_, it)| matches!(it.place, Place::Held { until } if until <= self.now));
        prop_assert!(late.is_none(), "waits for too long: {late:?}");
        Ok(())
    }

    fn arrive(&mut self, service: ServiceId, body: Bytes, draw: u32) -> TestCaseResult {
        let (ticket, answer) = self.gate.arrive(self.now, service, body, draw);
        let (since, waited) = (self.now, Duration::ZERO);
        let place = Place::Held { until: since };
        let request = Request { service, body, waited, since, deaths: 0, place };
        prop_assert!(self.open.last_key_value().is_none_or(|(last, _)| *last < ticket), "an old ticket");
        self.placed(ticket, request, answer)
    }

    fn placed(&mut self, ticket: Ticket, mut request: Request, answer: Answer) -> TestCaseResult {
        match answer {
            Answer::Held => {
                let left = self.config.hold_wait.saturating_sub(request.waited);
                request.since = self.now;
                request.place = Place::Held { until: self.now + left };
                self.open.insert(ticket, request);
                self.carry_out()
            }
            Answer::Go { instance } => {
                self.carry_out()?;
                let waits = self.open.iter().find(|(_, it)| is_held(it, request.service));
                prop_assert!(waits.is_none_or(|(it, _)| *it > ticket), "{ticket:?} overtook {waits:?}");
                self.send(ticket, request, instance)
            }
            Answer::Refused(refusal) => {
                self.carry_out()?;
                self.refused(ticket, &request, refusal)
            }
        }
    }

    fn send(&mut self, ticket: Ticket, mut request: Request, instance: InstanceId) -> TestCaseResult {
        let admitted = self.instances.get(&instance) == Some(&true);
        prop_assert!(admitted, "{ticket:?} was sent to {instance:?}, which may have none");
        prop_assert_eq!(instance.service, request.service);
        request.place = Place::Sent { instance, phase: Phase::Waiting };
        self.open.insert(ticket, request);
        Ok(())
    }

    fn refused(&self, ticket: Ticket, request: &Request, refusal: Refusal) -> TestCaseResult {
        let standing = self.standing[request.service.0 as usize];
        let right = match refusal.reason {
            Reason::Stopped => standing == Standing::Stopped,
            Reason::HoldTimeout => matches!(standing, Standing::Expected { .. }),
            Reason::BackingOff => matches!(standing, Standing::Expected { not_before: Some(_) }),
            Reason::HoldFull => self.held().count() >= self.config.hold_requests as usize,
            Reason::HoldBytes => self.held_bytes() + request.body > self.config.hold_bytes,
            Reason::Gone => false,
        };
        prop_assert!(right, "{ticket:?} {request:?} refused for {refusal:?} with {standing:?}");
        prop_assert!(refusal.retry_after > Duration::ZERO);
        Ok(())
    }

    fn done(&mut self, ticket: Ticket, outcome: Outcome) -> TestCaseResult {
        let mut request = self.open.remove(&ticket).expect("it was found there");
        let Place::Sent { instance, phase } = request.place else { unreachable!("only sent ones are done") };
        self.gate.done(self.now, instance, phase, outcome);
        self.carry_out()?;
        let reach = match (outcome, phase) {
            (Outcome::Served | Outcome::Left | Outcome::TimedOut, _) => return Ok(()),
            (Outcome::Unreachable, _) => Reach::NotSent,
            (Outcome::Lost, Phase::Waiting) => Reach::Sent,
            (Outcome::Lost, Phase::Answering | Phase::Streaming) => Reach::Answered,
        };
        request.deaths += u8::from(reach == Reach::Sent);
        let (deaths, safe) = (request.deaths, ticket.0.is_multiple_of(2));
        let fingerprint = ticket.0 % 7;
        let plea = Plea { reach, safe, repeatable: false, body_kept: true, deaths, fingerprint };
        let ruling = self.gate.plead(self.now, request.service, &plea);
        if ruling != Ruling::Again {
            return Ok(());
        }
        prop_assert!(reach == Reach::NotSent || (safe && deaths < 2), "{plea:?} goes again");
        let back = Back { ticket, body: request.body, waited: request.waited };
        let answer = self.gate.again(self.now, request.service, &back, 7);
        self.placed(ticket, request, answer)
    }

    fn move_on(&mut self, one: usize, from: Phase, to: Phase) {
        let found = self.nth(one, |it| matches!(it.place, Place::Sent { phase, .. } if phase == from));
        let Some(request) = found.and_then(|ticket| self.open.get_mut(&ticket)) else { return };
        let Place::Sent { instance, phase } = &mut request.place else { return };
        *phase = to;
        let instance = *instance;
        if to == Phase::Answering {
            self.gate.answered(self.now, instance);
        } else {
            self.gate.streams(self.now, instance);
        }
    }

    fn settle(&mut self) -> TestCaseResult {
        self.carry_out()?;
        self.agree()
    }

    /// Does what the gate wants done.
    fn carry_out(&mut self) -> TestCaseResult {
        while let Some(action) = self.gate.next_action() {
            match action {
                GateAction::Release { ticket, instance } => {
                    let request = self.leave_the_line(ticket)?;
                    let first = self.open.iter().find(|(_, it)| is_held(it, request.service));
                    prop_assert!(first.is_none_or(|(it, _)| *it > ticket), "{ticket:?} overtook {first:?}");
                    self.send(ticket, request, instance)?;
                }
                GateAction::Refuse { ticket, refusal } => {
                    let request = self.leave_the_line(ticket)?;
                    let Place::Held { until } = request.place else { unreachable!("it was in the line") };
                    prop_assert!(refusal.reason != Reason::HoldTimeout || until <= self.now);
                    self.refused(ticket, &request, refusal)?;
                }
                GateAction::InFlight { instance, count } => {
                    prop_assert_eq!(self.instances.get(&instance), Some(&false));
                    prop_assert!(count <= 1000);
                }
                GateAction::Stalled { instance } => {
                    prop_assert_eq!(self.instances.get(&instance), Some(&true));
                }
                GateAction::CloseStreams { instance } => {
                    prop_assert_eq!(self.instances.get(&instance), Some(&false));
                }
                GateAction::Tell { .. } => {}
            }
        }
        Ok(())
    }

    fn leave_the_line(&mut self, ticket: Ticket) -> Result<Request, TestCaseError> {
        let request = self.open.remove(&ticket);
        let mut request = request.filter(|it| matches!(it.place, Place::Held { .. }));
        if let Some(request) = &mut request {
            request.waited += self.now.since(request.since);
        }
        request.ok_or_else(|| TestCaseError::fail(format!("{ticket:?} does not wait, and is answered")))
    }

    /// Compares the gate's account with the one kept here.
    fn agree(&self) -> TestCaseResult {
        prop_assert_eq!(self.gate.held() as usize, self.held().count());
        prop_assert!(self.gate.held() <= self.widest.0 && self.held_bytes() <= self.widest.1);
        for id in self.instances.keys() {
            prop_assert_eq!(self.gate.in_flight(*id), self.in_flight(*id), "in flight on {:?}", id);
        }
        Ok(())
    }

    /// Everything in flight ends, and then only deadlines come.
    fn come_to_rest(&mut self) -> TestCaseResult {
        for _ in 0..DEADLINES_MAX {
            while let Some(ticket) = self.nth(0, |it| matches!(it.place, Place::Sent { .. })) {
                self.done(ticket, Outcome::Served)?;
            }
            let Some(at) = self.gate.next_deadline() else { break };
            self.due(at)?;
        }
        prop_assert_eq!(self.gate.next_deadline(), None, "never at rest");
        prop_assert!(self.open.is_empty(), "never answered: {:?}", self.open);
        self.agree()
    }

    fn held(&self) -> impl Iterator<Item = &Request> {
        self.open.values().filter(|it| matches!(it.place, Place::Held { .. }))
    }

    fn held_bytes(&self) -> Bytes {
        self.held().fold(Bytes::ZERO, |sum, it| sum + it.body)
    }

    fn in_flight(&self, id: InstanceId) -> u32 {
        let there = |it: &&Request| matches!(it.place, Place::Sent { instance, .. } if instance == id);
        u32::try_from(self.open.values().filter(there).count()).expect("few requests")
    }

    fn nth(&self, one: usize, which: impl Fn(&Request) -> bool) -> Option<Ticket> {
        let found: Vec<Ticket> = self.open.iter().filter(|(_, it)| which(it)).map(|(it, _)| *it).collect();
        (!found.is_empty()).then(|| found[one % found.len()])
    }
}

fn is_held(request: &Request, service: ServiceId) -> bool {
    request.service == service && matches!(request.place, Place::Held { .. })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_calls_in_any_order_answer_each_request_once_and_end_in_rest(
        config in config(),
        up in any::<bool>(),
        inputs in proptest::collection::vec(input(), 1..150),
    ) {
        let mut model = Model::new(config);
        if up {
            for service in 0..SERVICES {
                model.take(&Input::Stand(service, Some(1)))?;
            }
        }
        for input in inputs {
            model.take(&input)?;
        }
        model.come_to_rest()?;
    }
}
