//! What the front has to tell the guard, bounded however slowly it listens.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use plimsoll_core::gate::{GateRecord, Why};
use plimsoll_core::{InstanceId, ServiceId};
use tokio::sync::Notify;

/// Records that wait to be taken; past that the oldest go, and are counted.
const RECORDS_MAX: usize = 1024;

/// A request of which nobody knows whether it was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostRequest {
    pub service: ServiceId,
    /// `reports.7`
    pub instance: String,
    pub method: String,
    /// Without its query.
    pub path: String,
    /// As sent to the service in `X-Request-Id`.
    pub request_id: String,
    pub why: Why,
}

/// A request that was sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayedRequest {
    pub service: ServiceId,
    pub instance: String,
    pub method: String,
    pub path: String,
    pub request_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrontRecord {
    Gate {
        service: ServiceId,
        what: GateRecord,
    },
    Lost(LostRequest),
    Replayed(ReplayedRequest),
    /// Something of the front's own. `worth` is `info`, `warning` or `page`.
    Said {
        kind: &'static str,
        worth: &'static str,
        message: String,
    },
}

/// Everything that came up since the last time.
#[derive(Debug, Default)]
pub struct Reports {
    /// Requests in flight on instances that get no new ones, as of now.
    pub in_flight: BTreeMap<InstanceId, u32>,
    pub stalled: BTreeSet<InstanceId>,
    pub records: VecDeque<FrontRecord>,
    /// Records that nobody took in time.
    pub missed: u64,
}

impl Reports {
    fn is_empty(&self) -> bool {
        self.in_flight.is_empty() && self.stalled.is_empty() && self.records.is_empty() && self.missed == 0
    }
}

#[derive(Debug, Default)]
pub(crate) struct Reporter {
    pending: Mutex<Reports>,
    news: Notify,
}

impl Reporter {
    pub(crate) fn in_flight(&self, instance: InstanceId, count: u32) {
        self.with(|it| {
            it.in_flight.insert(instance, count);
        });
    }

    pub(crate) fn stalled(&self, instance: InstanceId) {
        self.with(|it| {
            it.stalled.insert(instance);
        });
    }

    pub(crate) fn gate(&self, service: ServiceId, what: GateRecord) {
        self.record(FrontRecord::Gate { service, what });
    }

    pub(crate) fn say(&self, kind: &'static str, worth: &'static str, message: String) {
        self.record(FrontRecord::Said { kind, worth, message });
    }

    pub(crate) fn record(&self, record: FrontRecord) {
        self.with(|it| {
            if it.records.len() >= RECORDS_MAX {
                it.records.pop_front();
                it.missed += 1;
            }
            it.records.push_back(record);
        });
    }

    fn with(&self, change: impl FnOnce(&mut Reports)) {
        change(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        self.news.notify_one();
    }

    /// Waits until there is something, and takes it all.
    pub(crate) async fn take(&self) -> Reports {
        loop {
            let reports = std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
            if !reports.is_empty() {
                return reports;
            }
            self.news.notified().await;
        }
    }
}

/// A wait in words for records: `1.2 s`, `340 ms`.
pub fn span(span: Duration) -> String {
    let millis = span.as_millis();
    if millis < 1000 { format!("{millis} ms") } else { format!("{:.1} s", span.as_secs_f64()) }
}
