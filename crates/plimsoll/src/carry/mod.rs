//! Puts the front to work for the guard: the configuration turned into the front's, and each told what the other says.

mod config;
mod words;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plimsoll_core::{InstanceId, ServiceId};
use plimsoll_front::config::FrontConfig;
use plimsoll_front::tls::CertificateReport;
use plimsoll_front::{Endpoint as FrontEndpoint, Front, RouteStats};
use plimsoll_guard::Endpoint;
use plimsoll_guard::records::{CertificateStatus, FrontStatus, RouteStatus, TrafficStatus};
use plimsoll_guard::traffic::{News, Traffic};

use crate::config::Config;
pub(crate) use config::config;
use config::front_config;
use words::news;

/// Route patterns of one service in `status`; metrics have all.
const ROUTES_SHOWN: usize = 20;

/// The front, as the guard holds it.
#[derive(Debug)]
pub(crate) struct Carrier {
    front: Arc<Front>,
    served: Vec<ServiceId>,
    state: PathBuf,
    /// The configuration that was read last, by whoever reads it.
    latest: Latest,
}

/// Where a configuration is left for the front to take up.
pub(crate) type Latest = Arc<Mutex<Option<Config>>>;

impl Carrier {
    pub(crate) fn new(front: Front, config: &FrontConfig, state: &Path, latest: Latest) -> Self {
        Self { front: Arc::new(front), served: served(config), state: state.to_owned(), latest }
    }
}

fn served(config: &FrontConfig) -> Vec<ServiceId> {
    config.routes.iter().map(|route| route.service).collect()
}

impl Traffic for Carrier {
    fn carries(&self, service: ServiceId) -> bool {
        self.served.contains(&service)
    }

    fn admit(&self, instance: InstanceId, name: &str, endpoint: &Endpoint) {
        let endpoint = match endpoint {
            Endpoint::Tcp(address) => FrontEndpoint::Tcp(*address),
            Endpoint::Unix(path) => FrontEndpoint::Unix(path.clone()),
        };
        self.front.admit(instance, name, endpoint);
    }

    fn withdraw(&self, instance: InstanceId, drain: Duration) -> u32 {
        self.front.withdraw(instance, drain)
    }

    fn forget(&self, instance: InstanceId) {
        self.front.forget(instance);
    }

    fn stopped(&self, service: ServiceId) {
        self.front.stopped(service);
    }

    fn expected(&self, service: ServiceId, due_in: Option<Duration>) {
        self.front.expected(service, due_in);
    }

    fn news(&self) -> News<'_> {
        Box::pin(async { news(self.front.reports().await) })
    }

    fn change(&mut self, services: &[(String, ServiceId)]) -> Result<Option<String>, String> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(latest) = latest else { return Ok(None) };
        let id = |name: &str| services.iter().find(|(it, _)| it == name).map(|(_, id)| *id);
        let descriptors = plimsoll_kernel::limits::own_descriptors().soft;
        let Some(config) = front_config(&latest, &self.state, descriptors, &id) else {
            return Ok(Some("[front] was removed, which takes a restart of the guard".to_owned()));
        };
        let served = served(&config);
        let changed = self.front.configure(config).map_err(|error| error.to_string())?;
        self.served = served;
        Ok(changed.anything.then(|| {
            if changed.certificate_stays {
                "front changed, but for the source of its certificates, which takes a restart of the guard"
                    .to_owned()
            } else {
                "front changed".to_owned()
            }
        }))
    }

    fn status(&self) -> FrontStatus {
        let url = |(address, tls): (std::net::SocketAddr, bool)| {
            format!("{}://{address}", if tls { "https" } else { "http" })
        };
        FrontStatus {
            listeners: self.front.addresses().into_iter().map(url).collect(),
            connections: self.front.counts().connections,
            certificates: self.front.certificates().into_iter().map(certificate_status).collect(),
        }
    }

    fn status_of(&self, service: ServiceId) -> Option<TrafficStatus> {
        if !self.carries(service) {
            return None;
        }
        let now = self.front.traffic(service)?;
        let routes = self.front.routes().into_iter().filter(|it| it.service == service).take(ROUTES_SHOWN);
        Some(TrafficStatus {
            held: now.held,
            in_flight: now.in_flight,
            streams: now.streams,
            requests: now.requests,
            held_ever: now.held_ever,
            refused: now.refused,
            replayed: now.replayed,
            longest_hold_ms: u64::try_from(now.longest_hold.as_millis()).unwrap_or(u64::MAX),
            routes: routes.map(|it| route_status(&it)).collect(),
        })
    }

    fn close(&self) {
        self.front.close();
        self.front.join();
    }
}

fn certificate_status(report: CertificateReport) -> CertificateStatus {
    CertificateStatus {
        days_left: report.days_left(jiff::Timestamp::now().as_second()),
        names: report.names,
        source: report.source.name().to_owned(),
        problem: report.problem,
    }
}

fn route_status(route: &RouteStats) -> RouteStatus {
    RouteStatus {
        method: route.method.clone(),
        pattern: route.pattern.clone(),
        requests: route.requests,
        in_flight: route.in_flight,
        failed: route.statuses[4],
        p50_ms: route.latency_within_ms(500),
        p99_ms: route.latency_within_ms(990),
    }
}
