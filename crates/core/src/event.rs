//! What the head is told. Every event is legal in every state; at worst it is recorded as an anomaly.

use core::time::Duration;

use crate::config::ServiceConfig;
use crate::ids::{InstanceId, ServiceId};
use crate::units::Bytes;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An operator asked for something.
    Ordered {
        service: ServiceId,
        order: Order,
    },
    /// New settings for a service that is already known.
    Configured {
        service: ServiceId,
        config: ServiceConfig,
    },
    /// The instance's process runs.
    Spawned {
        instance: InstanceId,
    },
    /// No process came to be.
    SpawnFailed {
        instance: InstanceId,
        failure: SpawnFailure,
    },
    /// The instance's main process ended. `tree_empty` says whether any other process of it is left.
    Exited {
        instance: InstanceId,
        exit: Exit,
        oom: OomDelta,
        tree_empty: bool,
    },
    /// The last process of the instance is gone.
    Emptied {
        instance: InstanceId,
    },
    Sampled {
        instance: InstanceId,
        sample: Sample,
    },
    /// The instance could not be measured: an alert, never a zero.
    SampleFailed {
        instance: InstanceId,
    },
    /// The kernel spoke up between two samples.
    Noticed {
        instance: InstanceId,
        notice: Notice,
    },
    Probed {
        instance: InstanceId,
        outcome: ProbeOutcome,
    },
    /// All the evidence that could be had in time is kept.
    EvidenceKept {
        instance: InstanceId,
    },
    /// Requests in flight on an instance, from whoever carries its traffic.
    InFlight {
        instance: InstanceId,
        count: u32,
    },
    /// Requests wait and none made progress for the service's `hang` time.
    Stalled {
        instance: InstanceId,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Start,
    Stop,
    /// Stop, then start, whatever the handover.
    Restart,
    /// A planned replacement by the service's own handover.
    Recycle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnFailure {
    /// The host is short of something (memory, processes, descriptors): it may work the next time.
    Exhausted,
    /// The address that the instance must listen on is somebody else's.
    AddressTaken,
    /// Command, folder or user: it will not work until somebody mends it. It is tried again all the same.
    Refused,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// Nobody saw it end.
    Unknown,
}

/// What changed in the instance's own out-of-memory counters during its life. Counts are changes, never deaths: one
/// group kill can raise `kills` by more than one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OomDelta {
    pub kills: u64,
}

/// One measurement of an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Anonymous, shared and kernel memory: what a recycle would give back. An upper bound is allowed far from the line.
    pub working_set: Bytes,
    /// Everything charged to the instance, page cache included.
    pub charged: Bytes,
    /// Open descriptors of its fullest process, where they were counted this time.
    pub descriptors: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Memory crossed a mark that the kernel watches for us.
    TripWire,
    /// The kernel killed in this instance for want of memory.
    OomKill,
    /// Processes of the instance stall for memory.
    Pressure,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    Passed {
        took: Duration,
    },
    /// An answer, but after the timeout: busy, not hung.
    Late {
        took: Duration,
    },
    /// An answer that says no, or nobody listening.
    Refused,
    /// No answer for as long as there was patience.
    Unanswered,
    /// The question could not be put, for want of something on our own side. It says nothing about the instance.
    NotAsked,
}
