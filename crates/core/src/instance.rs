//! One running copy, from spawn to gone.

use core::time::Duration;

use crate::cause::{Cause, Urgency};
use crate::event::Exit;
use crate::ids::InstanceId;
use crate::layers::descriptors::Descriptors;
use crate::layers::health::Prober;
use crate::layers::kill_switch::KillSwitch;
use crate::units::Instant;

/// Where an instance stands in its life. Only `service` changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Asked for. Goes to `Starting`, or is gone when no process came to be.
    Spawning,
    /// Runs, and has not answered yet. Goes to `Ready` or `Leaving`.
    Starting { since: Instant },
    /// Goes to `Unready` or `Leaving`.
    Ready,
    /// Fails its probes, but not often enough to end it. Goes to `Ready` or `Leaving`.
    Unready,
    /// On its way out for this cause; only goes forward through the stages, and is gone at the end.
    Leaving { stage: Stage, cause: Cause },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Evidence is kept and requests in flight finish. Goes to `Stopping`, or straight to `Killing`.
    Draining { evidence_until: Option<Instant>, drain_until: Option<Instant>, then_kill: bool },
    /// The stop signal is out. Goes to `Killing` after the grace.
    Stopping,
    /// Every process of it is being killed, again and again until none is left.
    Killing { since: Instant, told: bool },
}

/// What an instance is to its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The one that serves, or is to serve.
    Lead,
    /// The successor in an overlap, or the standing spare.
    Relief,
    /// Replaced; only its end is awaited.
    Former,
}

/// A decision to replace an instance, waiting for its turn or for a successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Doom {
    pub(crate) cause: Cause,
    pub(crate) urgency: Urgency,
    /// More than the recycle budget allows: the next start backs off as after a crash.
    pub(crate) over_budget: bool,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, in any combination")]
pub(crate) struct Instance {
    pub(crate) id: InstanceId,
    pub(crate) slot: u16,
    pub(crate) role: Role,
    pub(crate) life: Life,
    pub(crate) doom: Option<Doom>,
    pub(crate) kill_switch: KillSwitch,
    pub(crate) descriptors: Descriptors,
    pub(crate) prober: Prober,
    /// Known only where something carries its traffic.
    pub(crate) in_flight: Option<u32>,
    /// It is on record that it drains.
    pub(crate) drain_told: bool,
    pub(crate) exit: Option<Exit>,
    pub(crate) first_ready: Option<Instant>,
    /// When its end began.
    pub(crate) left: Option<Instant>,
    /// Requests are sent to it.
    pub(crate) admitted: bool,
    /// The next sample is its boot baseline.
    pub(crate) baseline_due: bool,
    /// The kernel's trip-wire fired and was raised.
    pub(crate) wire_fired: bool,
}

impl Instance {
    pub(crate) fn new(id: InstanceId, slot: u16, role: Role) -> Self {
        Self {
            id,
            slot,
            role,
            life: Life::Spawning,
            doom: None,
            kill_switch: KillSwitch::new(),
            descriptors: Descriptors::default(),
            prober: Prober::default(),
            in_flight: None,
            drain_told: false,
            exit: None,
            first_ready: None,
            left: None,
            admitted: false,
            baseline_due: false,
            wire_fired: false,
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.life == Life::Ready
    }

    pub(crate) fn is_leaving(&self) -> bool {
        matches!(self.life, Life::Leaving { .. })
    }

    /// Still able to answer a request that reaches it.
    pub(crate) fn is_lit(&self) -> bool {
        match self.life {
            Life::Ready | Life::Leaving { stage: Stage::Draining { .. }, .. } => true,
            Life::Spawning
            | Life::Starting { .. }
            | Life::Unready
            | Life::Leaving { stage: Stage::Stopping | Stage::Killing { .. }, .. } => false,
        }
    }

    /// How long it served; the time it takes to die does not count.
    pub(crate) fn ready_for(&self, now: Instant) -> Duration {
        self.first_ready.map_or(Duration::ZERO, |since| self.left.unwrap_or(now).since(since))
    }

    /// Keeps the more urgent of two decisions, and the first cause of equals.
    pub(crate) fn doom(&mut self, doom: Doom) {
        if self.doom.is_none_or(|before| doom.urgency > before.urgency) {
            self.doom = Some(doom);
        }
    }
}
