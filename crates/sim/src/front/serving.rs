//! The services' side: whether a request is heard, carried out and answered, and what ends with a process.

use std::time::Duration;

use plimsoll_core::InstanceId;
use plimsoll_core::gate::{Outcome, Phase, Reach, Ticket};
use plimsoll_core::units::Instant;

use super::ledger::{Verdict, rule};
use super::request::{Fate, Place, Request};
use super::{ANSWER_MAX, Cx, Front, FrontItem, LOOK_AGAIN};
use crate::kernel::{Ear, Item};

impl Front {
    /// Of the one that this attempt belongs to.
    fn sent(&mut self, ticket: Ticket, attempt: u32) -> Option<(&mut Request, InstanceId, Phase, Instant)> {
        let request = self.ledger.open.get_mut(&ticket).filter(|it| it.attempt == attempt)?;
        match request.place {
            Place::Sent { instance, phase, since, .. } => Some((request, instance, phase, since)),
            Place::New | Place::Held { .. } => None,
        }
    }

    pub(super) fn reach(&mut self, cx: &mut Cx<'_>, ticket: Ticket, attempt: u32) -> Verdict {
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
        if request.fate == Fate::Kills {
            cx.kernel.crash(cx.world, instance);
        }
        rule("replay", runs <= 1 || twice, || format!("{ticket:?} was carried out {runs} times"))
    }

    pub(super) fn reply(&mut self, cx: &mut Cx<'_>, ticket: Ticket, attempt: u32) -> Verdict {
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
        if request.fate == Fate::Resets {
            return self.fail(cx, ticket, Outcome::Lost, Reach::Sent);
        }
        let Some(goes_on) = request.goes_on else {
            if let Place::Sent { phase, .. } = &mut request.place {
                *phase = Phase::Answering;
            }
            self.ledger.instances.answered(cx.now, instance, false);
            self.gate.answered(cx.now, instance);
            return self.over(cx, ticket, Outcome::Served).map(|_| ());
        };
        let streams = request.fate == Fate::Streams;
        if let Place::Sent { phase, .. } = &mut request.place {
            *phase = if streams { Phase::Streaming } else { Phase::Answering };
        }
        cx.kernel.agenda.plan(cx.world + goes_on, Item::Front(FrontItem::End { ticket, attempt }));
        self.ledger.instances.answered(cx.now, instance, streams);
        self.gate.answered(cx.now, instance);
        if streams {
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

    pub(super) fn end(&mut self, cx: &mut Cx<'_>, ticket: Ticket, attempt: u32) -> Verdict {
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

    pub(super) fn cut(&mut self, cx: &mut Cx<'_>, id: InstanceId) -> Verdict {
        for (ticket, phase) in self.on(id) {
            let reach = match phase {
                Phase::Waiting => Reach::Sent,
                Phase::Answering | Phase::Streaming => Reach::Answered,
            };
            self.fail(cx, ticket, Outcome::Lost, reach)?;
        }
        Ok(())
    }

    pub(super) fn close_streams(&mut self, cx: &mut Cx<'_>, id: InstanceId) -> Verdict {
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
            Place::New | Place::Sent { .. } | Place::Held { .. } => None,
        };
        self.ledger.open.iter().filter_map(there).collect()
    }
}
