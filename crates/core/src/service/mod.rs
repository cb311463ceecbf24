//! The state machine of one service: the one place where the causes of all six layers meet.
//!
//! Events change facts; [`settle`] then compares what is with what is wanted and takes the next steps, so that any
//! order of events leads to the same place. [`accuse`] is the one decision-maker, [`leave`] the one way out.

mod accuse;
mod adopt;
mod leave;
mod save;
mod settle;
mod watch;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use crate::action::Action;
use crate::cause::Cause;
use crate::config::ServiceConfig;
use crate::deadlines::{Deadlines, Due};
use crate::event::{Exit, OomDelta, Order, SpawnFailure};
use crate::gate::Standing;
use crate::ids::{InstanceId, ServiceId};
use crate::incident::Incident;
use crate::instance::{Instance, Life, Role};
use crate::layers::hard_wall;
use crate::layers::kill_switch::Line;
use crate::layers::recovery::{Budget, Streak};
use crate::planted::{Plant, Planted};
use crate::record::{Kind, Record};
use crate::units::Instant;
use crate::view::Intent;

pub use adopt::{Found, Remains};

/// A main process that ends well this soon and leaves children behind has put itself in the background.
const DAEMONIZE_WITHIN: Duration = Duration::from_secs(10);

/// What a step may use and change besides the service itself.
#[derive(Debug)]
pub(crate) struct Cx<'a> {
    pub(crate) now: Instant,
    pub(crate) deadlines: &'a mut Deadlines,
    pub(crate) actions: &'a mut VecDeque<Action>,
    pub(crate) next_incident: &'a mut u64,
    pub(crate) plant: Plant,
}

impl Cx<'_> {
    pub(crate) fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub(crate) fn tell(
        &mut self,
        service: ServiceId,
        instance: Option<u64>,
        cause: Option<Cause>,
        kind: Kind,
    ) {
        self.act(Action::Tell(Record { service, instance, cause, kind }));
    }

    pub(crate) fn due_in(&mut self, due: Due, span: Duration) {
        self.deadlines.set(due, self.now + span);
    }
}

/// One of a service's `replicas`.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) streak: Streak,
    /// Failed lives of successors or spares in a row.
    pub(crate) relief_streak: Streak,
    pub(crate) lead_failures: u32,
    pub(crate) relief_failures: u32,
}

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) id: ServiceId,
    pub(crate) config: ServiceConfig,
    /// What is wanted. What is, the instances say.
    pub(crate) intent: Intent,
    pub(crate) slots: Vec<Slot>,
    pub(crate) instances: Vec<Instance>,
    pub(crate) next_number: u64,
    pub(crate) incident: Option<Incident>,
    pub(crate) budget: Budget,
    pub(crate) recycles: u64,
    pub(crate) restarts: u64,
    /// Since when nothing can answer, if that is so and something should.
    pub(crate) dark_since: Option<Instant>,
    pub(crate) dark_total: Duration,
    pub(crate) was_lit: bool,
    /// How long the last successful start took.
    pub(crate) boot_time: Duration,
    pub(crate) line_refusal_told: bool,
    /// What requests were last told to expect.
    pub(crate) standing: Standing,
    /// `stopped` has been put on record since the last order to stop.
    pub(crate) stop_told: bool,
}

impl Service {
    pub(crate) fn new(id: ServiceId, config: ServiceConfig, next_number: u64) -> Self {
        let slots = (0..config.replicas.max(1)).map(|_| Slot::default()).collect();
        Self {
            id,
            config,
            intent: Intent::Down,
            slots,
            instances: Vec::new(),
            next_number: next_number.max(1),
            incident: None,
            budget: Budget::default(),
            recycles: 0,
            restarts: 0,
            dark_since: None,
            dark_total: Duration::ZERO,
            was_lit: false,
            boot_time: Duration::ZERO,
            line_refusal_told: false,
            standing: Standing::Stopped,
            stop_told: true,
        }
    }

    pub(crate) fn ordered(&mut self, cx: &mut Cx<'_>, order: Order) {
        cx.tell(self.id, None, None, Kind::Ordered { order });
        match order {
            Order::Start => {
                self.intent = Intent::Up;
                self.forgive(cx);
            }
            Order::Stop => {
                self.intent = Intent::Down;
                self.stop_told = false;
            }
            Order::Restart => {
                self.intent = Intent::Up;
                self.forgive(cx);
                for index in self.leads() {
                    self.leave(cx, index, Cause::Ordered);
                }
            }
            Order::Recycle => self.order_recycle(),
        }
    }

    pub(crate) fn configured(&mut self, cx: &mut Cx<'_>, config: ServiceConfig) {
        self.config = config;
        self.line_refusal_told = false;
        while self.slots.len() < usize::from(self.config.replicas.max(1)) {
            self.slots.push(Slot::default());
        }
        cx.tell(self.id, None, None, Kind::Configured);
        for index in 0..self.instances.len() {
            let instance = &mut self.instances[index];
            instance.wire_fired = false;
            if cx.plant.has(Planted::ReloadForgetsBaseline) {
                instance.kill_switch.accept_any_line();
            }
            let refused = instance.kill_switch.rearm(&self.config.memory);
            if !instance.is_leaving() {
                if refused {
                    // What still waits for its turn was decided by a line that does not hold any more.
                    instance.doom = instance.doom.filter(|doom| !matches!(doom.cause, Cause::Memory { .. }));
                }
                cx.act(Action::SetHigh { instance: instance.id, at: self.config.memory.recycle });
            }
            if let (true, Line::Refused { baseline }) = (refused, instance.kill_switch.line()) {
                self.tell_line_refused(cx, index, baseline);
            }
        }
    }

    pub(crate) fn spawned(&mut self, cx: &mut Cx<'_>, id: InstanceId) {
        let Some(index) = self.find(cx, id) else { return };
        match self.instances[index].life {
            Life::Spawning => self.begin_starting(cx, index),
            // Its end was decided before it had begun: what now exists is killed.
            Life::Leaving { .. } => cx.act(Action::KillTree { instance: id }),
            Life::Starting { .. } | Life::Ready | Life::Unready => self.anomaly(cx, id, "spawned twice"),
        }
    }

    pub(crate) fn spawn_failed(&mut self, cx: &mut Cx<'_>, id: InstanceId, failure: SpawnFailure) {
        let Some(index) = self.find(cx, id) else { return };
        match self.instances[index].life {
            Life::Spawning => {
                cx.tell(self.id, Some(id.number), Some(Cause::SpawnFailed), Kind::SpawnFailed { failure });
                self.note(cx, index, Cause::SpawnFailed);
                self.die(cx, index, Cause::SpawnFailed);
                self.gone(cx, index);
            }
            Life::Leaving { .. } => self.gone(cx, index),
            Life::Starting { .. } | Life::Ready | Life::Unready => {
                self.anomaly(cx, id, "spawn failed after spawned");
            }
        }
    }

    pub(crate) fn exited(
        &mut self,
        cx: &mut Cx<'_>,
        id: InstanceId,
        exit: Exit,
        oom: OomDelta,
        tree_empty: bool,
    ) {
        let Some(index) = self.find(cx, id) else { return };
        if self.instances[index].exit.replace(exit).is_some() {
            self.anomaly(cx, id, "exited twice");
        }
        let cause = self.instances[index].cause_of_leaving();
        let planned = cause.is_some();
        cx.tell(self.id, Some(id.number), cause, Kind::Exited { exit, planned });
        if !planned {
            let cause = self.instances[index].cause_of_death(cx.now, exit, oom, tree_empty);
            self.note(cx, index, cause);
            self.keep_evidence_of_the_dead(cx, index);
            self.die(cx, index, cause);
        } else if hard_wall::was_out_of_memory(exit, oom) {
            self.note(cx, index, Cause::OutOfMemory { exit });
        }
        if tree_empty || cx.plant.has(Planted::ForgetChildren) {
            self.gone(cx, index);
        } else {
            self.kill(cx, index);
        }
    }

    pub(crate) fn emptied(&mut self, cx: &mut Cx<'_>, id: InstanceId) {
        let Some(index) = self.find(cx, id) else { return };
        if !self.instances[index].is_leaving() {
            // The main process ended and nobody saw how.
            let cause = Cause::Died { exit: Exit::Unknown };
            cx.tell(
                self.id,
                Some(id.number),
                Some(cause),
                Kind::Exited { exit: Exit::Unknown, planned: false },
            );
            self.note(cx, index, cause);
            self.die(cx, index, cause);
        }
        self.gone(cx, index);
    }

    pub(crate) fn lead_of(&self, slot: usize) -> Option<usize> {
        self.with_role(slot, Role::Lead)
    }

    pub(crate) fn relief_of(&self, slot: usize) -> Option<usize> {
        self.with_role(slot, Role::Relief)
    }

    fn with_role(&self, slot: usize, role: Role) -> Option<usize> {
        self.instances.iter().position(|it| usize::from(it.slot) == slot && it.role == role)
    }

    fn leads(&self) -> Vec<usize> {
        (0..self.slots.len()).filter_map(|slot| self.lead_of(slot)).collect()
    }

    /// An operator's start forgets old failures: whoever asks wants it now.
    fn forgive(&mut self, cx: &mut Cx<'_>) {
        for (number, slot) in (0u16..).zip(&mut self.slots) {
            *slot = Slot::default();
            cx.deadlines.clear(Due::Lead(self.id, number));
            cx.deadlines.clear(Due::Relief(self.id, number));
        }
    }

    /// The instance's place, or an anomaly on record: late and doubled events are normal life and must hurt nobody.
    fn find(&self, cx: &mut Cx<'_>, id: InstanceId) -> Option<usize> {
        let index = self.position(id);
        if index.is_none() {
            self.anomaly(cx, id, "event for an instance that is gone");
        }
        index
    }

    pub(crate) fn position(&self, id: InstanceId) -> Option<usize> {
        self.instances.iter().position(|it| it.id == id)
    }

    pub(crate) fn anomaly(&self, cx: &mut Cx<'_>, id: InstanceId, what: &'static str) {
        cx.tell(self.id, Some(id.number), None, Kind::Anomaly { what });
    }
}

impl Instance {
    fn cause_of_leaving(&self) -> Option<Cause> {
        match self.life {
            Life::Leaving { cause, .. } => Some(cause),
            Life::Spawning | Life::Starting { .. } | Life::Ready | Life::Unready => None,
        }
    }

    fn cause_of_death(&self, now: Instant, exit: Exit, oom: OomDelta, tree_empty: bool) -> Cause {
        let young = match self.life {
            Life::Starting { since } => now.since(since) < DAEMONIZE_WITHIN,
            Life::Spawning => true,
            Life::Ready | Life::Unready => self.ready_for(now) < DAEMONIZE_WITHIN,
            Life::Leaving { .. } => false,
        };
        if hard_wall::was_out_of_memory(exit, oom) {
            Cause::OutOfMemory { exit }
        } else if exit == Exit::Code(0) && !tree_empty && young {
            Cause::Daemonized
        } else {
            Cause::Died { exit }
        }
    }
}
