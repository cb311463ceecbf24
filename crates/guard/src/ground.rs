//! What this host lets us enforce, found out once at the start and the same for `run`, `check` and `status`.

use plimsoll_core::layers::hard_wall;
use plimsoll_core::units::Bytes;
use plimsoll_kernel::cgroup::{self, Hierarchy, Refusal, Version};
use plimsoll_kernel::{Roots, limits};

use crate::records::LayerStatus;
use crate::workload::{ProbeKind, Workload};

/// The host as the guard may use it.
#[derive(Debug)]
pub struct Ground {
    pub roots: Roots,
    /// Names this guard in cgroups and in the environment of its instances; the same in every life.
    pub scope: String,
    /// Where instances get their cgroups; `None` where no wall can be had and sampling stands in.
    pub hierarchy: Option<Hierarchy>,
    /// Why not, or why not better.
    pub refusals: Vec<Refusal>,
    /// The kernel tells when somebody stalls for memory.
    pub has_pressure: bool,
    /// Highest descriptor limit that a child can be given.
    pub descriptors_most: u64,
}

impl Ground {
    pub fn survey(roots: Roots, scope: &str) -> Self {
        Self::survey_with(roots, scope, &[])
    }

    /// The same where these processes of ours share our cgroup.
    pub fn survey_with(roots: Roots, scope: &str, companions: &[i32]) -> Self {
        let found = cgroup::discover_with(&roots, scope, companions);
        let has_pressure = crate::driver::host_pressure(&roots).is_some();
        Self {
            hierarchy: found.chosen,
            refusals: found.refusals,
            has_pressure,
            descriptors_most: limits::most_descriptors(&roots),
            scope: scope.to_owned(),
            roots,
        }
    }

    /// Whether the kernel tells us about memory between two samples.
    pub fn wakes_us(&self) -> bool {
        self.hierarchy.is_some()
    }

    /// One row per layer: how it is enforced for this workload here, and what would make it stronger.
    pub fn layers(&self, workload: &Workload) -> Vec<LayerStatus> {
        vec![
            soft_limit(workload),
            self.hard_wall(workload),
            self.descriptors(workload),
            self.kill_switch(workload),
            self.recovery(workload),
            health(workload),
        ]
    }

    fn hard_wall(&self, workload: &Workload) -> LayerStatus {
        let memory = &workload.head.memory;
        let (enforced_by, mut notes) = match &self.hierarchy {
            None => ("sampling".to_owned(), vec![self.why_no_cgroup()]),
            Some(hierarchy) => {
                let facts = hierarchy.facts();
                let mut notes = Vec::new();
                if !facts.swap_closed {
                    notes.push(
                        "swap is open, so the wall gives way to it; boot with swapaccount=1 or turn swap off"
                            .to_owned(),
                    );
                }
                if memory.group_kill && !facts.group_kill {
                    notes.push("the kernel kills one process at the wall and the guard the rest; cgroup v2 kills all at once".to_owned());
                }
                if !facts.tasks {
                    notes.push(
                        "no pids controller, so tasks is not limited and a fork bomb is met by memory alone"
                            .to_owned(),
                    );
                }
                if !facts.high {
                    notes.push("no memory.high here to brake under the wall; cgroup v2 has it".to_owned());
                }
                (facts.version.name().to_owned(), notes)
            }
        };
        if workload.head.memory.hard < workload.head.memory.recycle {
            notes.push("the line lies over the wall".to_owned());
        }
        row("hard_wall", &enforced_by, Some(memory.hard.0), notes)
    }

    /// As much of the limit as a child can be given.
    pub(crate) fn descriptor_limit(&self, wanted: u64) -> u64 {
        wanted.min(self.descriptors_most)
    }

    fn descriptors(&self, workload: &Workload) -> LayerStatus {
        let wanted = workload.head.descriptors.limit;
        let mut notes = Vec::new();
        if wanted > self.descriptor_limit(wanted) {
            notes.push(format!(
                "the guard may give at most {}; raise its own limit (ulimit -Hn, LimitNOFILE=)",
                self.descriptors_most
            ));
        }
        let line = workload.head.descriptors.recycle.of(wanted);
        notes.insert(0, format!("recycled at {line}"));
        LayerStatus { limit: Some(wanted), ..row("descriptors", "rlimit", None, notes) }
    }

    fn kill_switch(&self, workload: &Workload) -> LayerStatus {
        let mut by = vec!["sampling"];
        match self.hierarchy.as_ref().map(|it| it.facts().version) {
            Some(Version::V2) => by.push("memory.high"),
            Some(Version::V1) => by.push("threshold"),
            None => {}
        }
        if self.has_pressure {
            by.push("psi");
        }
        let near = hard_wall::near(&workload.head.memory);
        let mut notes = vec![format!("killed at once at {near}")];
        if self.hierarchy.is_none() {
            notes.push(format!(
                "no kernel wake-ups: between two samples a leak may outrun the line; {}",
                self.why_no_cgroup()
            ));
        }
        row("kill_switch", &by.join("+"), Some(workload.head.memory.recycle.0), notes)
    }

    fn recovery(&self, workload: &Workload) -> LayerStatus {
        let tree = if self.hierarchy.is_some() { "cgroup" } else { "process-tree" };
        let handover = match workload.head.recovery.handover {
            plimsoll_core::Handover::Hold => "hold",
            plimsoll_core::Handover::Overlap => "overlap",
            plimsoll_core::Handover::Standby => "standby",
        };
        let mut notes = vec![format!("handover {handover}")];
        if self.hierarchy.is_none() {
            notes.push(
                "a child that clears its environment and detaches can escape; a cgroup would hold it"
                    .to_owned(),
            );
        }
        row("recovery", tree, None, notes)
    }

    fn why_no_cgroup(&self) -> String {
        match self.refusals.last() {
            Some(refusal) => format!("{}: {}", refusal.why, refusal.fix),
            None => "no cgroup memory controller was found".to_owned(),
        }
    }
}

fn soft_limit(workload: &Workload) -> LayerStatus {
    let soft = &workload.soft_limit;
    let limit = (!soft.variables.is_empty()).then_some(workload.head.memory.soft.0);
    row("soft_limit", &soft.how, limit, soft.note.clone().into_iter().collect())
}

fn health(workload: &Workload) -> LayerStatus {
    let health = &workload.head.health;
    let (by, notes) = match &workload.probe {
        ProbeKind::None => {
            ("exit", vec!["only an exit is noticed: a hang is not; set health.http".to_owned()])
        }
        ProbeKind::Tcp => (
            "tcp",
            vec!["the kernel accepts for a program that hangs; set health.http to notice a hang".to_owned()],
        ),
        ProbeKind::Http { path } => ("http", vec![format!("GET {path} every {:?}", health.interval)]),
        ProbeKind::Command { argv } => {
            ("command", vec![format!("{} every {:?}", argv.join(" "), health.interval)])
        }
    };
    row("health", by, None, notes)
}

fn row(layer: &str, enforced_by: &str, limit_bytes: Option<u64>, notes: Vec<String>) -> LayerStatus {
    LayerStatus {
        layer: layer.to_owned(),
        enforced_by: enforced_by.to_owned(),
        limit_bytes,
        limit: None,
        notes,
    }
}

/// A share of the host's memory that walls may add up to before `check` warns.
pub fn host_memory(roots: &Roots) -> Option<Bytes> {
    let text = std::fs::read_to_string(roots.proc.join("meminfo")).ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(Bytes(kib * 1024))
}
