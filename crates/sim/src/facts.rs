//! What a checker gets to see of one step: what went in, what came out, and the truth about the processes.

use std::time::Duration;

use plimsoll_core::units::Instant;
use plimsoll_core::{
    Action, Event, Handover, InstanceId, InstanceState, Intent, Order, Record, ServiceConfig, ServiceId,
    ServiceView,
};

use crate::kernel::Kernel;

/// What the world knows of a service besides its processes.
#[derive(Debug)]
pub(crate) struct ServiceFacts {
    pub(crate) config: ServiceConfig,
    pub(crate) intent: Intent,
    /// When an order to stop or start last came, and when new settings did.
    pub(crate) ordered: Instant,
    pub(crate) configured: Instant,
    /// The handover was another one earlier in the run, so that instances of both may live.
    pub(crate) mixed_handover: bool,
    pub(crate) most_replicas: u16,
    /// Of the first instance that was never asked for.
    pub(crate) next_number: u64,
}

#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) services: Vec<ServiceFacts>,
    /// On the head's clock.
    pub(crate) healed: Option<Instant>,
    /// When the head's clock last jumped or stood still for it.
    pub(crate) disturbed: Option<Instant>,
}

/// One call of the head, everything about it in one place.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    pub(crate) now: Instant,
    /// `None`: deadlines were dealt with.
    pub(crate) event: Option<&'a Event>,
    pub(crate) actions: &'a [Action],
    /// Of every service, after the step.
    pub(crate) views: &'a [ServiceView],
    pub(crate) facts: &'a Facts,
    /// Before the actions are carried out.
    pub(crate) kernel: &'a Kernel,
    pub(crate) next_deadline: Option<Instant>,
}

impl Step<'_> {
    pub(crate) fn service(&self, id: ServiceId) -> &ServiceFacts {
        &self.facts.services[id.0 as usize]
    }

    pub(crate) fn config(&self, id: InstanceId) -> &ServiceConfig {
        &self.service(id.service).config
    }

    pub(crate) fn view(&self, id: ServiceId) -> &ServiceView {
        &self.views[id.0 as usize]
    }

    /// `None` when the head holds it for gone.
    pub(crate) fn state(&self, id: InstanceId) -> Option<InstanceState> {
        self.view(id.service).instances.iter().find(|it| it.id == id).map(|it| it.state)
    }

    pub(crate) fn is_leaving(&self, id: InstanceId) -> bool {
        match self.state(id) {
            None | Some(InstanceState::Draining | InstanceState::Stopping | InstanceState::Killing) => true,
            Some(InstanceState::Starting | InstanceState::Ready | InstanceState::Unready) => false,
        }
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.actions.iter().filter_map(|action| match action {
            Action::Tell(record) => Some(record),
            Action::Spawn { .. }
            | Action::Sample { .. }
            | Action::Probe { .. }
            | Action::Admit { .. }
            | Action::Withdraw { .. }
            | Action::KeepEvidence { .. }
            | Action::Signal { .. }
            | Action::KillTree { .. }
            | Action::SetHigh { .. }
            | Action::Stand { .. }
            | Action::Release { .. } => None,
        })
    }

    /// One slot, and `hold` from the first: the plainest case, for which the sharpest rules hold.
    pub(crate) fn is_plain_hold(&self, id: ServiceId) -> bool {
        let service = self.service(id);
        service.config.recovery.handover == Handover::Hold
            && !service.mixed_handover
            && service.most_replicas == 1
    }
}

impl ServiceFacts {
    /// When faults have stopped, everything must be as wanted after this: every wait there is, one after the other.
    pub(crate) fn settles_within(&self) -> Duration {
        let (recovery, health) = (&self.config.recovery, &self.config.health);
        let stop = recovery.drain + recovery.stop_grace + Duration::from_secs(3);
        let patience = (health.timeout * 3 / 2).max(health.interval) + Duration::from_secs(2);
        let find_out = (patience + health.interval) * health.retries.max(1);
        let start = health.start_period + Duration::from_secs(4);
        // A process that is already on its way to a crash, one that hangs, and a start that fails before one that works.
        let life = stop + recovery.backoff_max + start;
        let each = find_out + life * 3 + Duration::from_secs(10);
        each * u32::from(self.config.replicas.max(1)) + Duration::from_secs(30)
    }
}

impl ServiceFacts {
    pub(crate) fn new(config: ServiceConfig) -> Self {
        let most_replicas = config.replicas;
        Self {
            config,
            intent: Intent::Down,
            ordered: Instant::default(),
            configured: Instant::default(),
            mixed_handover: false,
            most_replicas,
            next_number: 1,
        }
    }
}

impl Facts {
    /// Keeps the world's own account of what operators want.
    pub(crate) fn take(&mut self, now: Instant, event: &Event) {
        match event {
            Event::Ordered { service, order } => {
                let service = &mut self.services[service.0 as usize];
                match order {
                    Order::Start | Order::Restart => service.intent = Intent::Up,
                    Order::Stop => service.intent = Intent::Down,
                    Order::Recycle => return,
                }
                service.ordered = now;
            }
            Event::Configured { service, config } => {
                let service = &mut self.services[service.0 as usize];
                service.mixed_handover |= service.config.recovery.handover != config.recovery.handover;
                service.most_replicas = service.most_replicas.max(config.replicas);
                service.config = config.clone();
                service.configured = now;
            }
            Event::Spawned { .. }
            | Event::SpawnFailed { .. }
            | Event::Exited { .. }
            | Event::Emptied { .. }
            | Event::Sampled { .. }
            | Event::SampleFailed { .. }
            | Event::Noticed { .. }
            | Event::Probed { .. }
            | Event::EvidenceKept { .. }
            | Event::InFlight { .. }
            | Event::Stalled { .. } => {}
        }
    }
}
