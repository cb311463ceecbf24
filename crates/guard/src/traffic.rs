//! The seam to whoever carries the services' requests. The guard says who may have them and hears what became of them;
//! it knows nothing of HTTP.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use plimsoll_core::{InstanceId, ServiceId};

use crate::endpoint::Endpoint;
use crate::records::{FrontStatus, RequestRecord, TrafficStatus};

/// What came up since the last time.
#[derive(Debug, Default)]
pub struct TrafficNews {
    /// Requests in flight on instances that get no new ones.
    pub in_flight: Vec<(InstanceId, u32)>,
    /// Instances from which requests wait for an answer, and none came for the service's `hang`.
    pub stalled: Vec<InstanceId>,
    /// For the record.
    pub said: Vec<Said>,
    /// For the incident that it belongs to.
    pub happened: Vec<(ServiceId, Happened)>,
}

/// What became of requests.
#[derive(Clone, Debug)]
pub enum Happened {
    /// All that waited have gone on or were refused.
    Held {
        requests: u64,
        refused: u64,
        longest: Duration,
    },
    Replayed,
    /// Nobody knows whether it was carried out.
    Unknown(RequestRecord),
}

/// Something for the operator.
#[derive(Clone, Debug)]
pub struct Said {
    /// `None`: of the whole front.
    pub service: Option<ServiceId>,
    /// `reports.7`
    pub instance: Option<String>,
    pub kind: &'static str,
    /// `info`, `warning` or `page`.
    pub severity: &'static str,
    pub message: String,
}

/// News, once there are any.
pub type News<'a> = Pin<Box<dyn Future<Output = TrafficNews> + 'a>>;

/// Carries requests. Every call returns at once; the driver waits for [`Traffic::news`] beside all else.
pub trait Traffic: Send {
    /// Whether requests of this service come through here.
    fn carries(&self, service: ServiceId) -> bool;
    /// The instance may have requests.
    fn admit(&self, instance: InstanceId, name: &str, endpoint: &Endpoint);
    /// No new ones; answers how many there are. Each change comes as news, down to none.
    fn withdraw(&self, instance: InstanceId, drain: Duration) -> u32;
    /// It is gone.
    fn forget(&self, instance: InstanceId);
    /// It is wanted down: nobody is to wait for it.
    fn stopped(&self, service: ServiceId);
    /// It is wanted up; `due_in` is when its next start is due, where it is backing off.
    fn expected(&self, service: ServiceId, due_in: Option<Duration>);
    /// Waits for news. Dropped before there are any, nothing is lost.
    fn news(&self) -> News<'_>;
    /// The configuration was read again, and `services` are those in it. `Ok` says what changed, if anything did; an
    /// error is said to the operator, and nothing has changed.
    fn change(&mut self, services: &[(String, ServiceId)]) -> Result<Option<String>, String>;
    /// How the front is doing, and one service's requests.
    fn status(&self) -> FrontStatus;
    fn status_of(&self, service: ServiceId) -> Option<TrafficStatus>;
    /// Another guard takes the listeners over: nothing new is accepted, and what is in flight goes on. Returns at once.
    fn let_go(&self);
    /// The guard ends: nothing new is accepted. Blocks until what is in flight is finished, or has had its time.
    fn close(&self);
}
