//! Clients and their connections, beside the real gate: they come in bursts, leave, and lose what is in flight when an
//! instance dies. What the gate decides is looked at in [`ledger`].

mod ledger;
mod request;

use std::collections::VecDeque;
use std::time::Duration;

use plimsoll_core::gate::{
    Answer, Gate, GateAction, GateConfig, GateRecord, Outcome, Phase, Reach, Reason, Ruling, Ticket,
};
use plimsoll_core::units::{Bytes, Instant};
use plimsoll_core::{Action, Event, InstanceId, Planted, ServiceId};

use crate::kernel::{Ear, Item, Kernel};
use crate::replay::Trace;
use crate::rng::Rng;
pub(crate) use ledger::{Broken, Verdict};
use ledger::{Ledger, rule};
use request::{Customs, Place, Request};

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
        let config = GateConfig {
            hold_wait: rng.millis(500, 30_000),
            hold_requests: rng.pick(&[2, 8, 40, 10_000]),
            hold_bytes: Bytes(rng.pick(&[150_000, 1_000_000, 64 << 20])),
            in_flight_max: rng.pick(&[1, 4, 4096, 4096]),
        };
        let mut gate = Gate::new(config);
        if let Some(bug) = plant {
            gate.plant(bug);
        }
        let customs = Customs::draw(rng);
        Self { gate, ledger: Ledger::new(config), customs, events: VecDeque::new() }
    }

    pub(crate) fn add(&mut self, service: ServiceId, hang: Duration) {
        self.gate.add(service, hang);
    }

    pub(crate) fn config(&self) -> &GateConfig {
        &self.ledger.config
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
            request.kills = false;
            request.resets = false;
        }
    }

    /// The clock stands still or jumps until then.
    pub(crate) fn disturb(&mut self, until: Instant) {
        self.ledger.disturbed = self.ledger.disturbed.max(until);
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
                let (crowd, before) = (self.ledger.crowd(instance.service), self.ledger.count(instance));
                self.ledger.admit(cx.now, instance);
                self.gate.admit(cx.now, instance);
                self.act(cx)?;
                if crowd {
                    self.ledger.crowd_went(instance, before)?;
                }
                // Only that somebody counts.
                self.events.push_back(Event::InFlight { instance, count: 0 });
            }
            Action::Withdraw { instance, drain } if cx.kernel.has_front(instance.service) => {
                self.ledger.withdraw(cx.now, instance, drain);
                let count = self.gate.withdraw(cx.now, instance, drain);
                self.events.push_back(Event::InFlight { instance, count });
                self.act(cx)?;
            }
            Action::Stand { service, standing } if cx.kernel.has_front(service) => {
                self.ledger.stand(service, standing);
                self.gate.stand(cx.now, service, standing);
                self.act(cx)?;
            }
            Action::Signal { instance } => return self.ledger.signalled(cx.now, instance),
            Action::Release { instance } => {
                self.ledger.forget(instance);
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
        let request = Request::draw(rng, &self.customs, service, cx.now);
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
                GateAction::Stalled { instance } => self.events.push_back(Event::Stalled { instance }),
                GateAction::CloseStreams { instance } => {
                    self.ledger.streams_closed(instance);
                    let after = cx.kernel.rng.latency(0, 20);
                    let item = Item::Front(FrontItem::CloseStreams(instance));
                    cx.kernel.agenda.plan(cx.world + after, item);
                }
                GateAction::Tell { what: GateRecord::Ejected { instance, pause }, .. } => {
                    self.ledger.ejected(cx.now, instance, pause)?;
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
            Place::Sent { .. } => self.over(cx, ticket, Outcome::Left).map(|_| ()),
        }
    }

    /// What was sent ends, one way or another.
    fn over(&mut self, cx: &mut Cx<'_>, ticket: Ticket, outcome: Outcome) -> Result<Option<Request>, Broken> {
        let Some(request) = self.ledger.open.remove(&ticket) else { return Ok(None) };
        let Place::Sent { instance, phase, .. } = request.place else { return Ok(None) };
        cx.trace.note(cx.now, || format!("over   {ticket:?} {instance:?} {phase:?} {outcome:?}"));
        self.ledger.landed(cx.now, instance, phase);
        self.gate.done(cx.now, instance, phase, outcome);
        self.act(cx)?;
        Ok(Some(request))
    }

    fn fail(&mut self, cx: &mut Cx<'_>, ticket: Ticket, outcome: Outcome, reach: Reach) -> Verdict {
        let Some(mut request) = self.over(cx, ticket, outcome)? else { return Ok(()) };
        request.deaths += u8::from(reach == Reach::Sent);
        let ruling = self.gate.plead(cx.now, request.service, &request.plea(reach));
        self.ledger.ruled(ticket, &request, reach, ruling)?;
        if ruling != Ruling::Again {
            return Ok(());
        }
        let draw = u32::try_from(cx.kernel.rng.between(0, u64::from(u32::MAX))).unwrap_or(0);
        let answer = self.gate.again(cx.now, request.service, &request.back(ticket), draw);
        self.placed(cx, ticket, request, answer)
    }

    /// Of the one that this attempt belongs to.
    fn sent(&mut self, ticket: Ticket, attempt: u32) -> Option<(&mut Request, InstanceId, Phase, Instant)> {
        let request = self.ledger.open.get_mut(&ticket).filter(|it| it.attempt == attempt)?;
        match request.place {
            Place::Sent { instance, phase, since, .. } => Some((request, instance, phase, since)),
            Place::Held { .. } => None,
        }
    }

    fn reach(&mut self, cx: &mut Cx<'_>, ticket: Ticket, attempt: u32) -> Verdict {
        let Some((request, instance, ..)) = self.sent(ticket, attempt) else { return Ok(()) };
        let ear = cx.kernel.ear(cx.world, instance);
        if ear == Ear::None {
            return self.fail(cx, ticket, Outcome::Unreachable, Reach::NotSent);
        }
        if let Place::Sent { reached, .. } = &mut request.place {
            *reached = true;
        }
        let takes = match ear {
            Ear::None | Ear::Deaf => Duration::ZERO,
            Ear::Slow => ANSWER_MAX,
            Ear::Open => request.takes,
        };
        cx.kernel.agenda.plan(cx.world + takes, Item::Front(FrontItem::Reply { ticket, attempt }));
        if ear == Ear::Deaf { Ok(()) } else { self.run(cx, ticket, attempt) }
    }

    /// The service carries it out.
    fn run(&mut self, cx: &mut Cx<'_>, ticket: Ticket, attempt: u32) -> Verdict {
        let Some((request, instance, ..)) = self.sent(ticket, attempt) else { return Ok(()) };
        request.runs += 1;
        request.ran = true;
        let (runs, twice) = (request.runs, request.may_run_twice());
        if request.kills {
            cx.kernel.crash(cx.world, instance);
        }
        rule("replay", runs <= 1 || twice, || format!("{ticket:?} was carried out {runs} times"))
    }

    fn reply(&mut self, cx: &mut Cx<'_>, ticket: Ticket, attempt: u32) -> Verdict {
        let Some((request, instance, _, since)) = self.sent(ticket, attempt) else { return Ok(()) };
        if cx.now.since(since) >= ANSWER_MAX {
            return self.over(cx, ticket, Outcome::TimedOut).map(|_| ());
        }
        match cx.kernel.ear(cx.world, instance) {
            // Its connection is about to be found cut.
            Ear::None => return Ok(()),
            Ear::Deaf => {
                cx.kernel
                    .agenda
                    .plan(cx.world + LOOK_AGAIN, Item::Front(FrontItem::Reply { ticket, attempt }));
                return Ok(());
            }
            Ear::Slow | Ear::Open => {}
        }
        if !request.ran {
            // It had waited for a service that heard nothing, up to now.
            return self.wake(cx, ticket, attempt);
        }
        if request.resets {
            return self.fail(cx, ticket, Outcome::Lost, Reach::Sent);
        }
        let Some(goes_on) = request.goes_on else {
            self.gate.answered(cx.now, instance);
            return self.over(cx, ticket, Outcome::Served).map(|_| ());
        };
        let streams = request.streams;
        if let Place::Sent { phase, .. } = &mut request.place {
            *phase = if streams { Phase::Streaming } else { Phase::Answering };
        }
        cx.kernel.agenda.plan(cx.world + goes_on, Item::Front(FrontItem::End { ticket, attempt }));
        self.gate.answered(cx.now, instance);
        if streams {
            self.ledger.becomes_stream(instance);
            self.gate.streams(cx.now, instance);
        }
        self.act(cx)
    }

    fn wake(&mut self, cx: &mut Cx<'_>, ticket: Ticket, attempt: u32) -> Verdict {
        let Some((request, ..)) = self.sent(ticket, attempt) else { return Ok(()) };
        let at = cx.world + request.takes;
        cx.kernel.agenda.plan(at, Item::Front(FrontItem::Reply { ticket, attempt }));
        self.run(cx, ticket, attempt)
    }

    fn end(&mut self, cx: &mut Cx<'_>, ticket: Ticket, attempt: u32) -> Verdict {
        let Some((_, instance, ..)) = self.sent(ticket, attempt) else { return Ok(()) };
        match cx.kernel.ear(cx.world, instance) {
            Ear::None => Ok(()),
            Ear::Deaf => {
                cx.kernel.agenda.plan(cx.world + LOOK_AGAIN, Item::Front(FrontItem::End { ticket, attempt }));
                Ok(())
            }
            Ear::Slow | Ear::Open => self.over(cx, ticket, Outcome::Served).map(|_| ()),
        }
    }

    fn cut(&mut self, cx: &mut Cx<'_>, id: InstanceId) -> Verdict {
        for (ticket, phase) in self.on(id) {
            let reach = match phase {
                Phase::Waiting => Reach::Sent,
                Phase::Answering | Phase::Streaming => Reach::Answered,
            };
            self.fail(cx, ticket, Outcome::Lost, reach)?;
        }
        Ok(())
    }

    fn close_streams(&mut self, cx: &mut Cx<'_>, id: InstanceId) -> Verdict {
        for (ticket, phase) in self.on(id) {
            if phase == Phase::Streaming {
                self.over(cx, ticket, Outcome::Served)?;
            }
        }
        Ok(())
    }

    /// What the service has there.
    fn on(&self, id: InstanceId) -> Vec<(Ticket, Phase)> {
        let there = |(ticket, it): (&Ticket, &Request)| match it.place {
            Place::Sent { instance, phase, reached: true, .. } if instance == id => Some((*ticket, phase)),
            Place::Sent { .. } | Place::Held { .. } => None,
        };
        self.ledger.open.iter().filter_map(there).collect()
    }
}
