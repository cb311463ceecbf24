//! Why an instance is acted on. Causes of all layers are of one kind, so that they can meet in one place.

use crate::event::Exit;
use crate::record::Layer;
use crate::units::{Bytes, BytesPerSecond};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The kill-switch's line, and which of its axes called.
    Memory {
        axis: Axis,
        working_set: Bytes,
        slope: BytesPerSecond,
    },
    /// The kernel killed it at the wall.
    OutOfMemory {
        exit: Exit,
    },
    Descriptors {
        count: u64,
        limit: u64,
    },
    /// It ended by itself.
    Died {
        exit: Exit,
    },
    /// Its main process left and its children stayed: it put itself in the background.
    Daemonized,
    /// Probes failed too often in a row.
    Unhealthy {
        failures: u32,
    },
    /// Requests wait, none moves, and a probe confirmed it.
    Hung,
    /// Not ready within its start period.
    StartTimedOut,
    SpawnFailed,
    /// A person asked.
    Ordered,
}

/// The kill-switch's axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Over the line for the whole of `for`.
    Persistence,
    /// Growing so fast that it would near the wall before it could be drained and stopped.
    Slope,
    /// Near the wall.
    Level,
}

/// How much time there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Drain, stop, replace. Waits for its turn and its budget.
    Gentle,
    /// The same, without waiting for turn or budget.
    Urgent,
    /// Kill now.
    Hard,
}

impl Cause {
    pub const fn layer(self) -> Option<Layer> {
        match self {
            Self::Memory { .. } => Some(Layer::KillSwitch),
            Self::OutOfMemory { .. } => Some(Layer::HardWall),
            Self::Descriptors { .. } => Some(Layer::Descriptors),
            Self::Died { .. } | Self::Daemonized | Self::SpawnFailed => Some(Layer::Recovery),
            Self::Unhealthy { .. } | Self::Hung | Self::StartTimedOut => Some(Layer::Health),
            Self::Ordered => None,
        }
    }

    /// The word used in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory { .. } => "memory",
            Self::OutOfMemory { .. } => "oom",
            Self::Descriptors { .. } => "descriptors",
            Self::Died { .. } => "exit",
            Self::Daemonized => "daemonized",
            Self::Unhealthy { .. } => "unhealthy",
            Self::Hung => "hang",
            Self::StartTimedOut => "start_timeout",
            Self::SpawnFailed => "spawn_failed",
            Self::Ordered => "operator",
        }
    }

    /// The same word as [`Cause::name`] gives it, of a cause that was told earlier.
    pub(crate) fn known_name(name: &str) -> Option<&'static str> {
        let exit = Exit::Unknown;
        let memory = Self::Memory { axis: Axis::Level, working_set: Bytes::ZERO, slope: BytesPerSecond(0) };
        let all = [
            memory,
            Self::OutOfMemory { exit },
            Self::Descriptors { count: 0, limit: 0 },
            Self::Died { exit },
            Self::Daemonized,
            Self::Unhealthy { failures: 0 },
            Self::Hung,
            Self::StartTimedOut,
            Self::SpawnFailed,
            Self::Ordered,
        ];
        all.into_iter().map(Self::name).find(|known| *known == name)
    }

    /// A planned replacement spends the recycle budget; anything else the crash budget.
    pub const fn is_recycle(self) -> bool {
        match self {
            Self::Memory { .. } | Self::Descriptors { .. } | Self::Ordered => true,
            Self::OutOfMemory { .. }
            | Self::Died { .. }
            | Self::Daemonized
            | Self::Unhealthy { .. }
            | Self::Hung
            | Self::StartTimedOut
            | Self::SpawnFailed => false,
        }
    }

    /// Whether the instance is past answering, so that draining and a long grace would only prolong the darkness.
    pub const fn is_deaf(self) -> bool {
        matches!(self, Self::Hung | Self::Unhealthy { .. } | Self::StartTimedOut)
    }
}

impl Axis {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Persistence => "persistence",
            Self::Slope => "slope",
            Self::Level => "level",
        }
    }
}
