//! Puts the front to work for the guard: the configuration turned into the front's, and each told what the other says.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plimsoll_core::gate::{GateConfig, GateRecord, IN_FLIGHT_MAX_DEFAULT, Why};
use plimsoll_core::{InstanceId, ServiceId};
use plimsoll_front::acme::{self, ChallengeKinds, Directory, Intervals};
use plimsoll_front::config::{FrontConfig, Hsts, Limits, ListenerConfig, RouteConfig, ServedConfig};
use plimsoll_front::tls::{CertificateConfig, CertificateReport, FilePair};
use plimsoll_front::{Endpoint as FrontEndpoint, Front, FrontRecord, LostRequest, Reports, RouteStats, span};
use plimsoll_guard::records::{CertificateStatus, FrontStatus, RequestRecord, RouteStatus, TrafficStatus};
use plimsoll_guard::traffic::{Happened, News, Said, Traffic, TrafficNews};
use plimsoll_guard::{Endpoint, Heritage};
use plimsoll_init::Link;
use plimsoll_init::protocol::{LISTENER, ToInit};

use crate::config::{Config, Front as FrontTable, Route, Tls};

/// Descriptors that clients may not take: the guard's own work needs them.
const DESCRIPTORS_RESERVED: u64 = 512;
const CONNECTIONS_MAX: u32 = 100_000;
/// Route patterns of one service in `status`; metrics have all.
const ROUTES_SHOWN: usize = 20;
const CONNECTIONS_MIN: u32 = 64;
/// Connections of a guard that is replaced may take so long to send their next request, and be told to come again.
const LINGER: Duration = Duration::from_secs(5);

/// What the front is started with; `None` where the configuration has no `[front]`. Services have their places in the
/// file for ids, as the guard gives them.
pub(crate) fn config(config: &Config, state: &Path, descriptors: Option<u64>) -> Option<FrontConfig> {
    let id = |name: &str| {
        let index = config.services.iter().position(|it| it.name == name)?;
        u32::try_from(index).ok().map(ServiceId)
    };
    front_config(config, state, descriptors, &id)
}

/// `id` is what the guard calls a service.
fn front_config(
    config: &Config,
    state: &Path,
    descriptors: Option<u64>,
    id: &dyn Fn(&str) -> Option<ServiceId>,
) -> Option<FrontConfig> {
    let table = config.front.as_ref()?;
    let served = |service: &crate::config::Service| {
        let hang = service.head().health.hang;
        Some(ServedConfig {
            id: id(&service.name)?,
            name: service.name.clone(),
            hang,
            protocol: service.protocol,
        })
    };
    Some(FrontConfig {
        listeners: listeners(table),
        gate: GateConfig {
            hold_wait: table.hold_wait,
            hold_requests: table.hold_requests,
            hold_bytes: table.hold_bytes,
            in_flight_max: IN_FLIGHT_MAX_DEFAULT,
        },
        limits: Limits {
            connections: table.connections.unwrap_or(u32::MAX).min(connections(descriptors)),
            ..table.limits
        },
        services: config.services.iter().filter_map(served).collect(),
        routes: routes(table, config, id),
        trusted: table.trusted.clone(),
        proxy_protocol: table.proxy_protocol.clone(),
        access_log: table.access_log.clone(),
        fence: table.fence,
        certificate: table.tls.as_ref().map(|tls| certificate(tls, table, state)),
        redirect: table.redirect,
        hsts: table.hsts.map(|max_age| Hsts { max_age }),
        ..FrontConfig::default()
    })
}

fn listeners(table: &FrontTable) -> Vec<ListenerConfig> {
    let plain = table.http.map(|address| ListenerConfig { address, tls: false });
    let tls = table.https.map(|address| ListenerConfig { address, tls: true });
    plain.into_iter().chain(tls).collect()
}

fn certificate(tls: &Tls, table: &FrontTable, state: &Path) -> CertificateConfig {
    match tls {
        Tls::Files { certificate, key } => {
            CertificateConfig::Files(FilePair { certificate: certificate.clone(), key: key.clone() })
        }
        Tls::Acme { domains, email, directory, roots, staging_first } => {
            CertificateConfig::Acme(Box::new(acme::Config {
                domains: domains.clone(),
                email: Some(email.clone()),
                directory: directory.clone(),
                rehearsal: staging_first.then_some(Directory::LetsEncryptStaging),
                roots: roots.clone(),
                profile: None,
                kinds: ChallengeKinds { http_01: table.http.is_some(), tls_alpn_01: table.https.is_some() },
                state: state.to_owned(),
                intervals: Intervals::default(),
            }))
        }
    }
}

/// The written ones; with none and one service, everything goes there.
fn routes(table: &FrontTable, config: &Config, id: &dyn Fn(&str) -> Option<ServiceId>) -> Vec<RouteConfig> {
    let route = |route: &Route| {
        let service = id(&route.service)?;
        let Route { host, path, replay, timeout, .. } = route.clone();
        Some(RouteConfig { host, path, service, replay, timeout })
    };
    match (table.routes.as_slice(), config.services.as_slice()) {
        ([], [only]) => route(&Route::all(&only.name)).into_iter().collect(),
        (routes, _) => routes.iter().filter_map(route).collect(),
    }
}

/// A request takes two descriptors: its client's and its instance's.
fn connections(descriptors: Option<u64>) -> u32 {
    let spare = descriptors.unwrap_or(u64::MAX).saturating_sub(DESCRIPTORS_RESERVED) / 2;
    u32::try_from(spare).unwrap_or(u32::MAX).clamp(CONNECTIONS_MIN, CONNECTIONS_MAX)
}

/// The front, as the guard holds it.
#[derive(Debug)]
pub(crate) struct Carrier {
    front: Arc<Front>,
    served: Vec<ServiceId>,
    state: PathBuf,
    /// The configuration that was read last, by whoever reads it.
    latest: Latest,
    /// Another guard accepts by now.
    left: AtomicBool,
    /// Init, which holds the listeners for the next guard.
    link: Option<Link>,
}

/// The key under which init holds a listener.
pub(crate) fn key(listener: &ListenerConfig) -> String {
    format!("{LISTENER}{} {}", if listener.tls { "https" } else { "http" }, listener.address)
}

/// The same for a socket that the service manager listens on for us.
pub(crate) const ACTIVATED: &str = "activated ";

/// Sockets that somebody bound before, each for the listener that is meant.
pub(crate) fn bound(config: &FrontConfig, heritage: &mut Heritage) -> Vec<(ListenerConfig, TcpListener)> {
    let mut kept = heritage.take_all(LISTENER);
    let mut activated = heritage.take_all(ACTIVATED);
    let mut found = Vec::new();
    for listener in &config.listeners {
        let name = key(listener);
        let kept =
            kept.iter().position(|(rest, _)| name.ends_with(rest.as_str())).map(|it| kept.swap_remove(it));
        let ours = |socket: &std::os::fd::OwnedFd| {
            let socket = socket.try_clone().map(TcpListener::from);
            socket.and_then(|it| it.local_addr()).is_ok_and(|address| address == listener.address)
        };
        let socket = kept.or_else(|| {
            let place = activated.iter().position(|(_, socket)| ours(socket))?;
            Some(activated.swap_remove(place))
        });
        if let Some((_, socket)) = socket {
            let socket = TcpListener::from(socket);
            if socket.set_nonblocking(true).is_ok() {
                found.push((*listener, socket));
            }
        }
    }
    found
}

/// Where a configuration is left for the front to take up.
pub(crate) type Latest = Arc<Mutex<Option<Config>>>;

impl Carrier {
    pub(crate) fn new(
        front: Front,
        config: &FrontConfig,
        state: &Path,
        latest: Latest,
        link: Option<Link>,
    ) -> Self {
        let carrier = Self {
            front: Arc::new(front),
            served: served(config),
            state: state.to_owned(),
            latest,
            left: AtomicBool::new(false),
            link,
        };
        carrier.keep_listeners(&[]);
        carrier
    }

    /// Has init hold every listener, and let go of those that were.
    fn keep_listeners(&self, before: &[ListenerConfig]) {
        let Some(link) = &self.link else { return };
        let now = self.front.listeners();
        for (listener, socket) in &now {
            // One that is not kept is bound anew by the next guard.
            let _ = link.keep(&key(listener), socket.as_ref());
        }
        for gone in before.iter().filter(|it| now.iter().all(|(other, _)| other != *it)) {
            let _ = link.say(&ToInit::Drop { key: key(gone) });
        }
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
        let before: Vec<ListenerConfig> = self.front.listeners().into_iter().map(|(it, _)| it).collect();
        let changed = self.front.configure(config).map_err(|error| error.to_string())?;
        self.served = served;
        self.keep_listeners(&before);
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

    fn let_go(&self) {
        self.front.leave();
        self.left.store(true, Ordering::Relaxed);
    }

    fn close(&self) {
        if self.left.load(Ordering::Relaxed) {
            self.front.linger(LINGER);
        }
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
        failed: route.statuses[4],
        p50_ms: route.latency_within_ms(500),
        p99_ms: route.latency_within_ms(990),
    }
}

fn news(reports: Reports) -> TrafficNews {
    let happened = reports.records.iter().filter_map(happened).collect();
    let mut said: Vec<Said> = reports.records.into_iter().map(in_words).collect();
    if reports.missed > 0 {
        let message = format!("{} records of the front came too fast to be kept", reports.missed);
        said.push(Said { service: None, instance: None, kind: "front_missed", severity: "warning", message });
    }
    TrafficNews {
        happened,
        in_flight: reports.in_flight.into_iter().collect(),
        stalled: reports.stalled.into_iter().collect(),
        said,
    }
}

fn happened(record: &FrontRecord) -> Option<(ServiceId, Happened)> {
    match record {
        FrontRecord::Gate { service, what: GateRecord::HoldEnded { requests, refused, longest } } => {
            Some((*service, Happened::Held { requests: *requests, refused: *refused, longest: *longest }))
        }
        FrontRecord::Gate { what: GateRecord::HoldBegan | GateRecord::Ejected { .. }, .. }
        | FrontRecord::Said { .. } => None,
        FrontRecord::Replayed(it) => Some((it.service, Happened::Replayed)),
        FrontRecord::Lost(lost) => {
            let request = RequestRecord {
                time: jiff::Timestamp::now(),
                instance: lost.instance.clone(),
                method: lost.method.clone(),
                path: lost.path.clone(),
                request_id: lost.request_id.clone(),
                reason: lost.why.name().to_owned(),
            };
            Some((lost.service, Happened::Unknown(request)))
        }
    }
}

fn in_words(record: FrontRecord) -> Said {
    match record {
        FrontRecord::Gate { service, what } => held(service, what),
        FrontRecord::Lost(lost) => lost_in_words(lost),
        FrontRecord::Replayed(it) => Said {
            service: Some(it.service),
            instance: Some(it.instance),
            kind: "replayed",
            severity: "info",
            message: format!("{} {} (request {}) is sent again", it.method, it.path, it.request_id),
        },
        FrontRecord::Said { kind, worth, message } => {
            Said { service: None, instance: None, kind, severity: worth, message }
        }
    }
}

fn held(service: ServiceId, what: GateRecord) -> Said {
    let (kind, severity, message) = match what {
        GateRecord::HoldBegan => ("hold_began", "info", "requests are held".to_owned()),
        GateRecord::HoldEnded { requests, refused: 0, longest } => {
            ("hold_ended", "info", format!("{requests} requests were held, {} at the longest", span(longest)))
        }
        GateRecord::HoldEnded { requests, refused, longest } => {
            let longest = span(longest);
            let message =
                format!("{requests} requests were held, {longest} at the longest; {refused} were refused");
            ("hold_ended", "warning", message)
        }
        GateRecord::Ejected { instance, pause } => {
            let message =
                format!("instance {} fails and gets no requests for {}", instance.number, span(pause));
            ("ejected", "warning", message)
        }
    };
    Said { service: Some(service), instance: None, kind, severity, message }
}

fn lost_in_words(lost: LostRequest) -> Said {
    let LostRequest { service, instance, method, path, request_id, why } = lost;
    let (kind, what) = match why {
        Why::Poison => ("poison", "was in flight at two deaths and is not sent again"),
        Why::MayHaveRun => ("outcome_unknown", "may have run"),
        Why::Answered | Why::BodyGone | Why::Budget | Why::Gone => ("outcome_unknown", "is not sent again"),
    };
    let message = format!("{method} {path} (request {request_id}) {what}");
    Said { service: Some(service), instance: Some(instance), kind, severity: "warning", message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_descriptors_for_the_guard() {
        assert_eq!(connections(Some(1024)), 256);
        assert_eq!(connections(Some(100)), CONNECTIONS_MIN);
        assert_eq!(connections(None), CONNECTIONS_MAX);
    }
}
