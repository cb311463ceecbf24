//! The records: one set of shapes for `--json`, the control API and the ledger.
//!
//! Every time is RFC 3339 in UTC with milliseconds. A reader takes what it knows and passes over the rest, so that an
//! older `plimsoll` can read what a newer one wrote; what may be missing is an `Option` or has a default. Sizes are in
//! bytes, spans in milliseconds; the unit is in the name.

mod from_kernel;
pub mod time;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use from_kernel::rollup_rows;

/// `plimsoll status --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub guard: GuardStatus,
    pub services: Vec<ServiceStatus>,
    /// What is worse than it should be with the guard itself, in words; empty when nothing is.
    #[serde(default)]
    pub degraded: Vec<String>,
    /// `None` without `[front]`.
    #[serde(default)]
    pub front: Option<FrontStatus>,
    /// One for each `[[vault]]`.
    #[serde(default)]
    pub vaults: Vec<VaultStatus>,
}

/// How one vault is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultStatus {
    pub name: String,
    pub database: String,
    pub to: String,
    /// `continuous`, `snapshots` or `stopped`.
    pub mode: String,
    /// Why it is not continuous, where it is not.
    #[serde(default)]
    pub why: Option<String>,
    /// The last transaction that was copied.
    #[serde(default)]
    pub tx: Option<u64>,
    /// All that was committed by then is in the store.
    #[serde(default, with = "time::option")]
    pub fresh_as_of: Option<Timestamp>,
    #[serde(default, with = "time::option")]
    pub last_snapshot: Option<Timestamp>,
    /// The newest snapshot that was restored and compared, and when that was done. Nothing else is a backup.
    #[serde(default, with = "time::option")]
    pub last_backup: Option<Timestamp>,
    #[serde(default, with = "time::option")]
    pub verified: Option<Timestamp>,
    pub backups: u64,
    pub snapshots: u64,
    pub waiting_bytes: u64,
    pub log_bytes: u64,
    /// The longest that the application's writers were held.
    pub held_ms_max: u64,
    #[serde(default)]
    pub sqlite_version: Option<String>,
    #[serde(default)]
    pub problems: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardStatus {
    pub pid: u32,
    /// `None` where the guard is its own init.
    #[serde(default)]
    pub init_pid: Option<u32>,
    #[serde(with = "time")]
    pub started: Timestamp,
    /// Of the end of the guard before this one, where that was not as planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_incident: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub name: String,
    /// What is wanted: `up` or `down`.
    pub intent: String,
    /// What is: `down`, `starting`, `ready`, `unready`, `draining`, `stopping`, `killing`, `backing off`.
    pub state: String,
    pub instances: Vec<InstanceStatus>,
    /// Planned replacements, since the guard started.
    pub recycles: u64,
    /// Planned replacements that count against the budget, in the last hour, and how many the budget allows.
    #[serde(default)]
    pub recycles_in_hour: u32,
    #[serde(default)]
    pub recycles_per_hour: u32,
    /// Starts after an end that nobody planned, since the guard started.
    pub restarts: u64,
    /// The open incident's number.
    #[serde(default)]
    pub incident: Option<u64>,
    #[serde(default)]
    pub layers: Vec<LayerStatus>,
    #[serde(default)]
    pub warnings: Vec<String>,
    /// `None` where its requests do not come through the front.
    #[serde(default)]
    pub traffic: Option<TrafficStatus>,
}

/// A service's requests, as the front counts them since the guard started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficStatus {
    /// Now.
    pub held: u32,
    pub in_flight: u32,
    pub streams: u32,
    /// In all.
    pub requests: u64,
    pub held_ever: u64,
    pub refused: u64,
    pub replayed: u64,
    pub longest_hold_ms: u64,
    /// By route pattern, most requests first; the first 20.
    #[serde(default)]
    pub routes: Vec<RouteStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    pub method: String,
    /// `/reports/:id`
    pub pattern: String,
    pub requests: u64,
    pub in_flight: u64,
    /// Answered with 5xx.
    pub failed: u64,
    /// Half, and 99 of 100, are answered within this; `None` past the last bound of the histogram.
    pub p50_ms: Option<u32>,
    pub p99_ms: Option<u32>,
}

/// The front itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontStatus {
    /// `http://127.0.0.1:8080`
    pub listeners: Vec<String>,
    pub connections: u32,
    #[serde(default)]
    pub certificates: Vec<CertificateStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    pub names: Vec<String>,
    /// `files` or `acme`.
    pub source: String,
    /// `None` while there is none.
    #[serde(default)]
    pub days_left: Option<i64>,
    #[serde(default)]
    pub problem: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// `reports.7`
    pub id: String,
    /// `None` before its process runs.
    #[serde(default)]
    pub pid: Option<i32>,
    pub state: String,
    /// `lead` serves; `relief` is a successor or a spare.
    #[serde(default)]
    pub role: String,
    /// `None` for a worker that listens nowhere.
    #[serde(default)]
    pub address: Option<String>,
    #[serde(with = "time")]
    pub started: Timestamp,
    /// Working set; `None` before the first measurement, which is not zero.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    #[serde(default)]
    pub memory_slope_bytes_per_second: i64,
    #[serde(default)]
    pub descriptors: Option<u64>,
    /// How fast they grow; 0 when they do not.
    #[serde(default)]
    pub descriptors_per_second: u64,
}

/// How one of the six layers is enforced for a service on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerStatus {
    /// `soft_limit`, `hard_wall`, `descriptors`, `kill_switch`, `recovery`, `health`.
    pub layer: String,
    pub enforced_by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// A limit that is a count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// What the layer cannot do here, and what would make it stronger.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Something that happened: one line of `plimsoll events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    #[serde(with = "time")]
    pub time: Timestamp,
    /// `guard` when it is about the guard itself.
    pub service: String,
    #[serde(default)]
    pub instance: Option<String>,
    pub kind: String,
    #[serde(default)]
    pub layer: Option<String>,
    #[serde(default)]
    pub cause: Option<String>,
    /// Always a `message` and a `severity` (`info`, `warning`, `page`), and the figures of the kind and of the cause.
    #[serde(default)]
    pub detail: Map<String, Value>,
}

/// Something that a layer acted on, from its first cause until the service was well again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentRecord {
    /// Counts up from 1 in the life of a state folder.
    pub id: u64,
    pub service: String,
    #[serde(default)]
    pub instance: Option<String>,
    #[serde(with = "time")]
    pub opened: Timestamp,
    /// `None` while it is open.
    #[serde(default, with = "time::option")]
    pub closed: Option<Timestamp>,
    /// The layer that acted first.
    #[serde(default)]
    pub layer: Option<String>,
    /// One sentence.
    pub summary: String,
    /// In the order in which they were noticed.
    #[serde(default)]
    pub causes: Vec<CauseRecord>,
    /// What was done: `stopped and replaced, then killed`.
    #[serde(default)]
    pub action: Option<String>,
    /// How long nobody could serve; `None` while it is open.
    #[serde(default)]
    pub dark_ms: Option<u64>,
    /// What became of requests; `None` where none was touched, or none comes through the front.
    #[serde(default)]
    pub requests: Option<RequestsRecord>,
    /// `None` in listings, which would be too long with it.
    #[serde(default)]
    pub evidence: Option<Evidence>,
}

/// Requests that an incident touched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestsRecord {
    /// Waited for an instance, and how many of them were refused in the end.
    pub held: u64,
    pub refused: u64,
    pub longest_hold_ms: u64,
    /// Sent again after a death.
    pub replayed: u64,
    /// May have been carried out although their clients were told that they failed; the first 100.
    #[serde(default)]
    pub unknown: Vec<RequestRecord>,
    /// All of these, also those past the first 100.
    #[serde(default)]
    pub unknown_count: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    #[serde(with = "time")]
    pub time: Timestamp,
    pub instance: String,
    pub method: String,
    /// Without its query.
    pub path: String,
    /// As the service got it in `X-Request-Id`.
    pub request_id: String,
    /// `may-have-run`, `in-flight-at-two-deaths`, `replay-budget-spent`, …
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CauseRecord {
    #[serde(with = "time")]
    pub time: Timestamp,
    #[serde(default)]
    pub instance: Option<String>,
    #[serde(default)]
    pub layer: Option<String>,
    pub cause: String,
    /// The cause in words.
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub detail: Map<String, Value>,
}

/// What was kept of an instance before it was stopped for cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    #[serde(with = "time")]
    pub taken: Timestamp,
    pub took_ms: u64,
    /// The last measurements at full rate, oldest first.
    pub samples: Vec<SampleRow>,
    /// `/proc/PID/smaps_rollup`; the keys end in `_bytes`.
    pub smaps_rollup: BTreeMap<String, u64>,
    /// The cgroup's `memory.stat` as the kernel gives it: bytes and event counts.
    pub memory_stat: BTreeMap<String, u64>,
    pub descriptors: Option<DescriptorTable>,
    /// Threads by name, state and where they wait, most first.
    pub threads: Vec<ThreadRow>,
    /// The last lines of the instance's output as stored: time, instance, text.
    pub log_tail: Vec<String>,
    /// `None` when it was still alive.
    pub exit: Option<ExitRecord>,
    /// What the kernel counted in this life alone.
    pub oom: OomRecord,
    /// What could not be had, and why.
    pub missing: Vec<String>,
}

impl Default for Evidence {
    fn default() -> Self {
        Self {
            taken: Timestamp::UNIX_EPOCH,
            took_ms: 0,
            samples: Vec::new(),
            smaps_rollup: BTreeMap::new(),
            memory_stat: BTreeMap::new(),
            descriptors: None,
            threads: Vec::new(),
            log_tail: Vec::new(),
            exit: None,
            oom: OomRecord::default(),
            missing: Vec::new(),
        }
    }
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleRow {
    #[serde(with = "time")]
    pub time: Timestamp,
    /// Working set: anon + shmem + kernel memory, no page cache.
    pub memory_bytes: u64,
    /// All that is charged to the cgroup, page cache too.
    pub charged_bytes: u64,
    /// Not counted at every measurement.
    #[serde(default)]
    pub descriptors: Option<u64>,
}

/// Open descriptors by kind, most first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorTable {
    /// How many were looked at: all of them when `complete`.
    pub count: u64,
    pub limit: u64,
    #[serde(default)]
    pub complete: bool,
    #[serde(default)]
    pub kinds: Vec<DescriptorRow>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorRow {
    /// `file`, `tcp`, `pipe`, …
    pub kind: String,
    /// In words: `TCP ESTABLISHED to port 5432`.
    pub detail: String,
    pub count: u64,
}

/// Threads that do the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadRow {
    /// The first one's.
    pub id: i32,
    pub name: String,
    /// The kernel's letter: `R` runs, `S` sleeps, `D` is stuck in the kernel.
    pub state: String,
    /// The kernel function that they wait in.
    #[serde(default)]
    pub wchan: Option<String>,
    pub count: u64,
}

/// How a process ended: by code or by signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    #[serde(default)]
    pub code: Option<i32>,
    #[serde(default)]
    pub signal: Option<i32>,
    #[serde(default)]
    pub core_dumped: bool,
}

/// The cgroup's out-of-memory counts over one life. They count changes of state, not deaths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OomRecord {
    pub high: u64,
    pub max: u64,
    pub oom: u64,
    pub oom_kill: u64,
    pub oom_group_kill: u64,
}

/// Measurements of one instance over a minute or an hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleRollup {
    /// When the span began.
    #[serde(with = "time")]
    pub time: Timestamp,
    /// 60 or 3,600.
    pub span_seconds: u32,
    pub instance: String,
    pub memory_bytes: Spread,
    /// `None` when they were not counted in that span.
    #[serde(default)]
    pub descriptors: Option<Spread>,
}

/// The least, the mean and the most of so many measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    pub min: u64,
    pub avg: u64,
    pub max: u64,
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_in_the_contracts_words_is_read_whatever_else_it_says() {
        let text = r#"{"version":"0.9","guard":{"pid":4242,"init_pid":4241,"started":"2026-11-23T20:00:00Z","new":1},
            "services":[{"name":"reports","intent":"up","state":"ready","instances":[{"id":"reports.7","pid":4711,
            "state":"ready","address":"127.0.0.1:43121","started":"2026-11-23T20:00:00Z","memory_bytes":88080384,
            "descriptors":34}],"recycles":3,"restarts":1,"layers":[{"layer":"hard_wall","enforced_by":"cgroup-v2",
            "limit_bytes":536870912}]}]}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        assert_eq!(status.guard.init_pid, Some(4241));
        assert_eq!(status.services[0].instances[0].memory_bytes, Some(88_080_384));
        assert_eq!(status.services[0].layers[0].limit_bytes, Some(536_870_912));
        let again: Status = serde_json::from_str(&serde_json::to_string(&status).unwrap()).unwrap();
        assert_eq!(again, status);
    }

    #[test]
    fn an_event_is_written_in_the_contracts_order_with_milliseconds() {
        let event = EventRecord {
            time: "2026-11-23T20:00:01.1239Z".parse().unwrap(),
            service: "reports".to_owned(),
            instance: Some("reports.7".to_owned()),
            kind: "recycled".to_owned(),
            layer: Some("kill_switch".to_owned()),
            cause: Some("memory".to_owned()),
            detail: Map::new(),
        };
        assert_eq!(
            serde_json::to_string(&event).unwrap(),
            r#"{"time":"2026-11-23T20:00:01.123Z","service":"reports","instance":"reports.7","kind":"recycled","layer":"kill_switch","cause":"memory","detail":{}}"#
        );
    }

    #[test]
    fn evidence_with_parts_missing_is_still_evidence() {
        let evidence: Evidence =
            serde_json::from_str(r#"{"took_ms":12,"missing":["threads: gone"]}"#).unwrap();
        assert_eq!((evidence.took_ms, evidence.missing.len()), (12, 1));
        assert_eq!(evidence.oom, OomRecord::default());
    }
}
