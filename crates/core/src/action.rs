//! What the head wants done. The driver does it and reports the outcome as an event.

use core::time::Duration;

use crate::gate::Standing;
use crate::ids::{IncidentId, InstanceId, ServiceId};
use crate::record::Record;
use crate::units::Bytes;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a process in its own cgroup. Answer: `Spawned` or `SpawnFailed`.
    Spawn { instance: InstanceId },
    /// Measure. Answer: `Sampled` or `SampleFailed`.
    Sample { instance: InstanceId, descriptors: bool },
    /// Ask the instance whether it is well. `timeout` divides `Passed` from `Late`, `patience` ends in `Unanswered`.
    Probe { instance: InstanceId, timeout: Duration, patience: Duration },
    /// New requests may go to this instance.
    Admit { instance: InstanceId },
    /// No new requests to this instance; those in flight have `drain` to finish. Answer, where somebody carries its
    /// traffic: `InFlight`, now and with each change, down to 0.
    Withdraw { instance: InstanceId, drain: Duration },
    /// What requests may expect while no instance may have them.
    Stand { service: ServiceId, standing: Standing },
    /// Keep what will be gone once the instance is. Answer, within `budget`: `EvidenceKept`.
    KeepEvidence { instance: InstanceId, incident: IncidentId, budget: Duration },
    /// Send the service's stop signal to its main process.
    Signal { instance: InstanceId },
    /// Kill every process of the instance. Answer, sooner or later: `Exited` and `Emptied`.
    KillTree { instance: InstanceId },
    /// Have the kernel speak up (and slow the instance down) at this much memory.
    SetHigh { instance: InstanceId, at: Bytes },
    /// Nothing of the instance is alive: give back its cgroup, address and pipes.
    Release { instance: InstanceId },
    /// Put on record: one line for the operator, one row for the ledger.
    Tell(Record),
}
