//! Clients and their connections, beside the real gate: they come in bursts, leave, and lose what is in flight when an
//! instance dies. [`serving`] is the services' side; what the gate decides is looked at in [`ledger`], [`instances`] and
//! [`replays`].

mod instances;
mod ledger;
mod replays;
mod request;
mod serving;

use std::collections::VecDeque;
use std::time::Duration;

use plimsoll_core::gate::{
    Answer, Gate, GateAction, GateConfig, GateRecord, Outcome, Reach, Reason, Ruling, Ticket,
};
use plimsoll_core::units::{Bytes, Instant};
use plimsoll_core::{Action, Event, InstanceId, Planted, ServiceId};

use crate::kernel::{Item, Kernel};
use crate::replay::Trace;
use crate::rng::Rng;
pub(crate) use ledger::{Broken, Verdict};
use ledger::{Ledger, rule};
use request::{Customs, Fate, Place, Request};

/// Longest that a request waits for its answer.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(20);
/// How often one that is not answered looks again whether it is.
const LOOK_AGAIN: Duration = Duration::from_millis(400);

/// What clients, connections and services have yet to do. A stale attempt is nobody's any more.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FrontItem {
    Arrive(ServiceId),
    Leave(Ticket),
    Reach {
        ticket: Ticket,
        attempt: u32,
    },
    Reply {
        ticket: Ticket,
        attempt: u32,
    },
    End {
        ticket: Ticket,
        attempt: u32,
    },
    /// A process has ended, and with it its connections.
    Cut(InstanceId),
    /// Its streams are to end.
    CloseStreams(InstanceId),
}

/// What a step may use besides the front itself. The gate goes by the head's clock, the agenda by the world's.
#[derive(Debug)]
pub(crate) struct Cx<'a> {
    pub(crate) world: Instant,
    pub(crate) now: Instant,
    pub(crate) kernel: &'a mut Kernel,
    pub(crate) trace: &'a mut Trace,
}

#[derive(Debug)]
pub(crate) struct Front {
    gate: Gate,
    ledger: Ledger,
    customs: Customs,
    /// For the head.
    pub(crate) events: VecDeque<Event>,
}

impl Front {
    pub(crate) fn new(rng: &mut Rng, plant: Option<Planted>) -> Self {
        let config = draw_config(rng);
        let mut gate = Gate::new(config);
        if let Some(bug) = plant {
            gate.plant(bug);
        }
        let customs = Customs::draw(rng);
        Self { gate, ledger: Ledger::new(config), customs, events: VecDeque::new() }
    }

    pub(crate) fn add(&mut self, now: Instant, service: ServiceId, hang: Duration) {
        self.gate.add(service, hang);
        self.ledger.instances.hang(now, service, hang);
    }

    /// New bounds, while it runs.
    pub(crate) fn reconfigure(&mut self, rng: &mut Rng) {
        let config = draw_config(rng);
        self.gate.configure(config);
        self.ledger.configure(config);
    }

    pub(crate) fn config(&self) -> &GateConfig {
        &self.ledger.config
    }

    pub(crate) fn storms(&self) -> bool {
        self.customs.storms
    }

    pub(crate) fn open(&self) -> usize {
        self.ledger.open.len()
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.gate.next_deadline()
    }

    pub(crate) fn heal(&mut self) {
        self.customs.heal();
        for request in self.ledger.open.values_mut() {
            if matches!(request.fate, Fate::Kills | Fate::Resets) {
                request.fate = Fate::Answered;
            }
        }
    }

    /// The clock stands still or jumps until then.
    pub(crate) fn disturb(&mut self, until: Instant) {
        let disturbed = &mut self.ledger.instances.disturbed;
        *disturbed = (*disturbed).max(until);
    }

    pub(crate) fn handle_deadline(&mut self, cx: &mut Cx<'_>) -> Verdict {
        self.gate.handle_deadline(cx.now);
        self.act(cx)?;
        let next = self.gate.next_deadline();
        rule("spins", next.is_none_or(|at| at > cx.now), || format!("due again at once: {next:?}"))?;
        self.ledger.agree(cx.now, &self.gate)
    }

    /// The head has decided something.
    pub(crate) fn told(&mut self, cx: &mut Cx<'_>, action: &Action) -> Verdict {
        match *action {
            Action::Admit { instance } if cx.kernel.has_front(instance.service) => {
                let crowd = self.ledger.crowd(instance.service);
                self.ledger.instances.admit(cx.now, instance, crowd);
                self.gate.admit(cx.now, instance);
                self.act(cx)?;
                // Only that somebody counts.
                self.events.push_back(Event::InFlight { instance, count: 0 });
            }
            Action::Withdraw { instance, drain } if cx.kernel.has_front(instance.service) => {
                self.ledger.instances.withdraw(cx.now, instance, drain);
                let count = self.gate.withdraw(cx.now, instance, drain);
                self.events.push_back(Event::InFlight { instance, count });
                self.act(cx)?;
            }
            Action::Stand { service, standing } if cx.kernel.has_front(service) => {
                self.ledger.stand(service, standing);
                self.gate.stand(cx.now, service, standing);
                self.act(cx)?;
            }
            Action::Signal { instance } => return self.ledger.instances.signalled(cx.now, instance),
            Action::Release { instance } => {
                self.ledger.instances.forget(cx.now, instance);
                self.gate.forget(cx.now, instance);
                self.act(cx)?;
            }
            Action::Admit { .. }
            | Action::Withdraw { .. }
            | Action::Stand { .. }
            | Action::Spawn { .. }
            | Action::Sample { .. }
            | Action::Probe { .. }
            | Action::KeepEvidence { .. }
            | Action::KillTree { .. }
            | Action::SetHigh { .. }
            | Action::Tell(_) => return Ok(()),
        }
        self.ledger.agree(cx.now, &self.gate)
    }

    pub(crate) fn happen(&mut self, cx: &mut Cx<'_>, item: FrontItem) -> Verdict {
        match item {
            FrontItem::Arrive(service) => self.arrive(cx, service)?,
            FrontItem::Leave(ticket) => self.leave(cx, ticket)?,
            FrontItem::Reach { ticket, attempt } => self.reach(cx, ticket, attempt)?,
            FrontItem::Reply { ticket, attempt } => self.reply(cx, ticket, attempt)?,
            FrontItem::End { ticket, attempt } => self.end(cx, ticket, attempt)?,
            FrontItem::Cut(instance) => self.cut(cx, instance)?,
            FrontItem::CloseStreams(instance) => self.close_streams(cx, instance)?,
        }
        self.ledger.agree(cx.now, &self.gate)
    }

    fn arrive(&mut self, cx: &mut Cx<'_>, service: ServiceId) -> Verdict {
        let rng = &mut cx.kernel.rng;
        let request = Request::draw(rng, &self.customs, service);
        if self.customs.fences {
            let gates = self.gate.is_poison(cx.now, service, request.fingerprint);
            let known = self.ledger.replays.is_poison(cx.now, service, request.fingerprint);
            rule("replay", gates == known, || format!("known to kill: {known}, to the gate: {gates}"))?;
            if gates {
                return Ok(());
            }
        }
        self.ledger.replays.arrived(cx.now, service);
        let draw = u32::try_from(rng.between(0, u64::from(u32::MAX))).unwrap_or(0);
        let (ticket, answer) = self.gate.arrive(cx.now, service, request.body, draw);
        if cx.kernel.rng.chance(self.customs.leavers) {
            let most = cx.kernel.rng.pick(&[50, 2000, 20_000]);
            let after = cx.kernel.rng.latency(0, most);
            cx.kernel.agenda.plan(cx.world + after, Item::Front(FrontItem::Leave(ticket)));
        }
        self.placed(cx, ticket, request, answer)
    }

    fn placed(&mut self, cx: &mut Cx<'_>, ticket: Ticket, request: Request, answer: Answer) -> Verdict {
        cx.trace.note(cx.now, || format!("ask    {ticket:?} {answer:?} {:?}", request.method));
        match answer {
            Answer::Held => {
                self.ledger.hold(cx.now, ticket, request)?;
                self.act(cx)
            }
            Answer::Go { instance } => {
                self.act(cx)?;
                self.send(cx, ticket, request, instance)
            }
            Answer::Refused(refusal) => {
                self.act(cx)?;
                self.ledger.refused(cx.now, ticket, &request, refusal)
            }
        }
    }

    fn send(&mut self, cx: &mut Cx<'_>, ticket: Ticket, request: Request, instance: InstanceId) -> Verdict {
        let attempt = request.attempt + 1;
        self.ledger.send(cx.now, ticket, request, instance)?;
        // Its client may have left while the release was on its way.
        if cx.kernel.rng.chance(2) {
            return self.leave(cx, ticket);
        }
        let after = cx.kernel.rng.latency(0, 1);
        cx.kernel.agenda.plan(cx.world + after, Item::Front(FrontItem::Reach { ticket, attempt }));
        Ok(())
    }

    /// Does what the gate wants done.
    fn act(&mut self, cx: &mut Cx<'_>) -> Verdict {
        while let Some(action) = self.gate.next_action() {
            cx.trace.note(cx.now, || format!("gate   {action:?}"));
            match action {
                GateAction::Release { ticket, instance } => {
                    let request = self.ledger.answer(cx.now, ticket)?;
                    self.send(cx, ticket, request, instance)?;
                }
                GateAction::Refuse { ticket, refusal } => {
                    let request = self.ledger.answer(cx.now, ticket)?;
                    self.ledger.refused(cx.now, ticket, &request, refusal)?;
                    rule("answers", refusal.reason != Reason::BackingOff, || format!("{ticket:?} was held"))?;
                }
                GateAction::InFlight { instance, count } => {
                    self.events.push_back(Event::InFlight { instance, count });
                }
                GateAction::Stalled { instance } => {
                    self.ledger.instances.stalled(cx.now, instance)?;
                    self.events.push_back(Event::Stalled { instance });
                }
                GateAction::CloseStreams { instance } => {
                    self.ledger.instances.streams_closed(instance);
                    let after = cx.kernel.rng.latency(0, 20);
                    let item = Item::Front(FrontItem::CloseStreams(instance));
                    cx.kernel.agenda.plan(cx.world + after, item);
                }
                GateAction::Tell { what: GateRecord::Ejected { instance, pause }, .. } => {
                    self.ledger.instances.ejected(cx.now, instance, pause)?;
                }
                GateAction::Tell { what: GateRecord::HoldBegan | GateRecord::HoldEnded { .. }, .. } => {}
            }
        }
        Ok(())
    }

    fn leave(&mut self, cx: &mut Cx<'_>, ticket: Ticket) -> Verdict {
        let Some(request) = self.ledger.open.get(&ticket).copied() else { return Ok(()) };
        cx.trace.note(cx.now, || format!("leave  {ticket:?}"));
        match request.place {
            Place::Held { .. } => {
                self.ledger.unhold(cx.now, ticket);
                self.gate.left(cx.now, request.service, ticket);
                self.act(cx)
            }
            Place::New | Place::Sent { .. } => self.over(cx, ticket, Outcome::Left).map(|_| ()),
        }
    }

    /// What was sent ends, one way or another.
    fn over(&mut self, cx: &mut Cx<'_>, ticket: Ticket, outcome: Outcome) -> Result<Option<Request>, Broken> {
        let landed = self.ledger.landed(cx.now, ticket, outcome);
        let Some((request, instance, phase)) = landed else { return Ok(None) };
        cx.trace.note(cx.now, || format!("over   {ticket:?} {instance:?} {phase:?} {outcome:?}"));
        self.gate.done(cx.now, instance, phase, outcome);
        self.act(cx)?;
        Ok(Some(request))
    }

    fn fail(&mut self, cx: &mut Cx<'_>, ticket: Ticket, outcome: Outcome, reach: Reach) -> Verdict {
        let Some(mut request) = self.over(cx, ticket, outcome)? else { return Ok(()) };
        request.deaths += u8::from(reach == Reach::Sent);
        let ruling = self.gate.plead(cx.now, request.service, &request.plea(reach));
        self.ledger.replays.ruled(cx.now, ticket, &request, reach, ruling)?;
        if ruling != Ruling::Again {
            return Ok(());
        }
        let draw = u32::try_from(cx.kernel.rng.between(0, u64::from(u32::MAX))).unwrap_or(0);
        let answer = self.gate.again(cx.now, request.service, &request.back(ticket), draw);
        self.placed(cx, ticket, request, answer)
    }
}

fn draw_config(rng: &mut Rng) -> GateConfig {
    GateConfig {
        hold_wait: rng.millis(500, 30_000),
        hold_requests: rng.pick(&[2, 8, 40, 10_000]),
        hold_bytes: Bytes(rng.pick(&[150_000, 1_000_000, 64 << 20])),
        in_flight_max: rng.pick(&[1, 4, 4096, 4096]),
    }
}
