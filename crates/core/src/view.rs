//! What may be seen of the head from outside: the words of `status`.

use alloc::vec::Vec;

use crate::ids::{IncidentId, InstanceId};
use crate::instance::{Instance, Life, Role, Stage};
use crate::layers::kill_switch::Line;
use crate::service::Service;
use crate::units::{Bytes, BytesPerSecond, Instant};

/// What is wanted of a service. What it is, [`ServiceState`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    Up,
    Down,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceState {
    Down,
    BackingOff,
    Instance(InstanceState),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    Starting,
    Ready,
    Unready,
    Draining,
    Stopping,
    Killing,
}

/// Where layer 4's line stands for an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineView {
    Armed,
    Refused { baseline: Bytes },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceView {
    pub id: InstanceId,
    pub state: InstanceState,
    /// The successor or spare, not yet serving.
    pub relief: bool,
    pub working_set: Option<Bytes>,
    pub slope: BytesPerSecond,
    pub descriptors: Option<u64>,
    pub descriptors_per_second: u64,
    pub line: LineView,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    pub intent: Intent,
    pub state: ServiceState,
    pub instances: Vec<InstanceView>,
    pub recycles: u64,
    /// Of the budget of `recycles_per_hour`.
    pub recycles_in_hour: u32,
    pub restarts: u64,
    pub incident: Option<IncidentId>,
    /// Failed starts or lives in a row, of the worst slot.
    pub failures: u32,
}

impl InstanceState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Unready => "unready",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Killing => "killing",
        }
    }
}

impl ServiceState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::BackingOff => "backing off",
            Self::Instance(state) => state.name(),
        }
    }
}

impl Instance {
    fn view(&self, now: Instant) -> InstanceView {
        InstanceView {
            id: self.id,
            state: state_of(self.life),
            relief: self.role == Role::Relief,
            working_set: self.kill_switch.latest(),
            slope: self.kill_switch.slope(now),
            descriptors: self.descriptors.latest(),
            descriptors_per_second: self.descriptors.slope_per_second(),
            line: match self.kill_switch.line() {
                Line::Armed => LineView::Armed,
                Line::Refused { baseline } => LineView::Refused { baseline },
            },
        }
    }
}

impl Service {
    pub(crate) fn view(&self, now: Instant) -> ServiceView {
        ServiceView {
            intent: self.intent,
            state: self.state(),
            instances: self.instances.iter().map(|it| it.view(now)).collect(),
            recycles: self.recycles,
            recycles_in_hour: self.budget.spent(now),
            restarts: self.restarts,
            incident: self.incident.as_ref().map(|it| it.id),
            failures: self.slots.iter().map(|slot| slot.lead_failures).max().unwrap_or(0),
        }
    }

    /// The state of the best lead: a service with one ready replica is ready.
    fn state(&self) -> ServiceState {
        let leads = self.instances.iter().filter(|it| it.role != Role::Relief);
        let best = leads.map(|it| state_of(it.life)).min_by_key(|state| rank(*state));
        match best {
            Some(state) => ServiceState::Instance(state),
            None if self.intent == Intent::Up => ServiceState::BackingOff,
            None => ServiceState::Down,
        }
    }
}

const fn state_of(life: Life) -> InstanceState {
    match life {
        Life::Spawning | Life::Starting { .. } => InstanceState::Starting,
        Life::Ready => InstanceState::Ready,
        Life::Unready => InstanceState::Unready,
        Life::Leaving { stage: Stage::Draining { .. }, .. } => InstanceState::Draining,
        Life::Leaving { stage: Stage::Stopping, .. } => InstanceState::Stopping,
        Life::Leaving { stage: Stage::Killing { .. }, .. } => InstanceState::Killing,
    }
}

/// The better a state serves, the lower.
const fn rank(state: InstanceState) -> u8 {
    match state {
        InstanceState::Ready => 0,
        InstanceState::Unready => 1,
        InstanceState::Draining => 2,
        InstanceState::Starting => 3,
        InstanceState::Stopping => 4,
        InstanceState::Killing => 5,
    }
}
