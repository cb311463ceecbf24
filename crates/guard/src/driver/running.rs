//! What the driver holds of one instance while anything of it is left.

use std::sync::Arc;

use jiff::Timestamp;
use plimsoll_core::{IncidentId, InstanceId};
use plimsoll_kernel::cgroup::{Group, OomCounts};
use plimsoll_kernel::process::Identity;
use plimsoll_kernel::procfs::Counter;

use super::recent::Recent;
use crate::endpoint::Endpoint;
use crate::records::ExitRecord;

#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one thing under way beside the driver, in any combination"
)]
pub(super) struct Running {
    pub(super) id: InstanceId,
    /// `reports.7`
    pub(super) name: String,
    /// The main process, once there is one.
    pub(super) main: Option<Identity>,
    pub(super) group: Option<Arc<Group>>,
    pub(super) address: Option<Endpoint>,
    pub(super) started: Timestamp,
    pub(super) samples: Recent,
    /// Counts the main process's descriptors.
    pub(super) counter: Option<Counter>,
    pub(super) exit: Option<ExitRecord>,
    /// Counters at the start of its life: only what came on top is its own.
    pub(super) oom_before: OomCounts,
    /// The counts when they were last looked at.
    pub(super) oom_seen: OomCounts,
    /// The wall was met; whether somebody was killed there is not known yet.
    pub(super) kill_suspected: bool,
    pub(super) watch: Option<super::notices::Watch>,
    /// A kill pass is at work; another would only get in its way.
    pub(super) killing: bool,
    /// Evidence is being taken; its cgroup stays until that is done.
    pub(super) taking_evidence: bool,
    pub(super) release_wanted: bool,
    /// The head wants it to have requests.
    pub(super) admitted: bool,
    pub(super) incident: Option<IncidentId>,
    /// The last error or refusal about it, in the words of whoever met it.
    pub(super) last_why: Option<String>,
}

impl Running {
    pub(super) fn new(id: InstanceId, name: String, started: Timestamp) -> Self {
        Self {
            id,
            name,
            main: None,
            group: None,
            address: None,
            started,
            samples: Recent::default(),
            counter: None,
            exit: None,
            oom_before: OomCounts::default(),
            oom_seen: OomCounts::default(),
            kill_suspected: false,
            watch: None,
            killing: false,
            taking_evidence: false,
            release_wanted: false,
            admitted: false,
            incident: None,
            last_why: None,
        }
    }

    /// Out-of-memory counts of this life alone.
    pub(super) fn oom(&self) -> OomCounts {
        let now = self.group.as_ref().and_then(|group| group.oom().ok()).unwrap_or(self.oom_before);
        now.since(&self.oom_before)
    }
}
