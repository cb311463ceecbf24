//! What is put on record. The driver adds wall-clock time and names, and writes it to the log and the ledger.

use core::time::Duration;

use crate::cause::Cause;
use crate::event::{Exit, Order, SpawnFailure};
use crate::ids::{IncidentId, ServiceId};
use crate::units::Bytes;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub service: ServiceId,
    /// The instance's number.
    pub instance: Option<u64>,
    pub cause: Option<Cause>,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    SoftLimit,
    HardWall,
    Descriptors,
    KillSwitch,
    Recovery,
    Health,
}

impl Layer {
    pub const ALL: [Self; 6] =
        [Self::SoftLimit, Self::HardWall, Self::Descriptors, Self::KillSwitch, Self::Recovery, Self::Health];

    pub const fn name(self) -> &'static str {
        match self {
            Self::SoftLimit => "soft_limit",
            Self::HardWall => "hard_wall",
            Self::Descriptors => "descriptors",
            Self::KillSwitch => "kill_switch",
            Self::Recovery => "recovery",
            Self::Health => "health",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Info,
    Warning,
    /// A person should look.
    Page,
}

/// What happened. The name in records is [`Kind::name`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Ordered {
        order: Order,
    },
    Configured,
    Starting,
    Started,
    SpawnFailed {
        failure: SpawnFailure,
    },
    /// `again`: it had been ready before, and for a while it was not.
    Ready {
        after: Duration,
        again: bool,
    },
    Unready,
    /// A handover begins.
    Recycling,
    Draining,
    Stopping,
    Killing,
    /// Killed long ago and still there: a process in uninterruptible sleep.
    KillLate {
        after: Duration,
    },
    Exited {
        exit: Exit,
        planned: bool,
    },
    OomKill,
    /// The instance is gone after a planned replacement, or after an unplanned end.
    Recycled,
    BackingOff {
        attempt: u32,
        delay: Duration,
    },
    CrashLoop {
        attempt: u32,
    },
    /// Successor or spare did not get ready; the old one stays.
    HandoverFailed {
        attempt: u32,
    },
    Stopped,
    OverLine {
        working_set: Bytes,
        line: Bytes,
    },
    UnderLine {
        working_set: Bytes,
        line: Bytes,
    },
    TripWire,
    /// The line lies under what the service needs just to run.
    LineRefused {
        baseline: Bytes,
        line: Bytes,
    },
    BudgetSpent {
        recycles_per_hour: u32,
    },
    SampleFailed {
        failures: u32,
    },
    SampledAgain,
    ProbeFailed {
        failures: u32,
    },
    ProbeLate {
        took: Duration,
    },
    IncidentOpened {
        incident: IncidentId,
    },
    /// A further cause for an incident that is open already.
    IncidentJoined {
        incident: IncidentId,
    },
    IncidentClosed {
        incident: IncidentId,
        dark: Duration,
        lasted: Duration,
    },
    /// An event that should not have been possible. The guard goes on.
    Anomaly {
        what: &'static str,
    },
}

impl Kind {
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ordered { .. } => "ordered",
            Self::Configured => "configured",
            Self::Starting => "starting",
            Self::Started => "started",
            Self::SpawnFailed { .. } => "spawn_failed",
            Self::Ready { .. } => "ready",
            Self::Unready => "unready",
            Self::Recycling => "recycling",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Killing => "killing",
            Self::KillLate { .. } => "kill_late",
            Self::Exited { .. } => "exited",
            Self::OomKill => "oom_kill",
            Self::Recycled => "recycled",
            Self::BackingOff { .. } => "backing_off",
            Self::CrashLoop { .. } => "crash_loop",
            Self::HandoverFailed { .. } => "handover_failed",
            Self::Stopped => "stopped",
            Self::OverLine { .. } => "over_line",
            Self::UnderLine { .. } => "under_line",
            Self::TripWire => "trip_wire",
            Self::LineRefused { .. } => "line_refused",
            Self::BudgetSpent { .. } => "budget_spent",
            Self::SampleFailed { .. } => "sample_failed",
            Self::SampledAgain => "sampled_again",
            Self::ProbeFailed { .. } => "probe_failed",
            Self::ProbeLate { .. } => "probe_late",
            Self::IncidentOpened { .. } => "incident_opened",
            Self::IncidentJoined { .. } => "incident_joined",
            Self::IncidentClosed { .. } => "incident_closed",
            Self::Anomaly { .. } => "anomaly",
        }
    }

    pub const fn severity(&self) -> Severity {
        match self {
            Self::CrashLoop { .. }
            | Self::BudgetSpent { .. }
            | Self::LineRefused { .. }
            | Self::KillLate { .. }
            | Self::SampleFailed { .. } => Severity::Page,
            Self::SpawnFailed { .. }
            | Self::Unready
            | Self::Recycling
            | Self::Killing
            | Self::OomKill
            | Self::BackingOff { .. }
            | Self::HandoverFailed { .. }
            | Self::OverLine { .. }
            | Self::ProbeFailed { .. }
            | Self::ProbeLate { .. }
            | Self::IncidentOpened { .. }
            | Self::IncidentJoined { .. }
            | Self::Anomaly { .. } => Severity::Warning,
            Self::Exited { planned, .. } => {
                if *planned {
                    Severity::Info
                } else {
                    Severity::Warning
                }
            }
            Self::Ordered { .. }
            | Self::Configured
            | Self::Starting
            | Self::Started
            | Self::Ready { .. }
            | Self::Draining
            | Self::Stopping
            | Self::Recycled
            | Self::Stopped
            | Self::UnderLine { .. }
            | Self::TripWire
            | Self::SampledAgain
            | Self::IncidentClosed { .. } => Severity::Info,
        }
    }
}
