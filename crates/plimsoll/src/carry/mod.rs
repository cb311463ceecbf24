//! Puts the front to work for the guard: the configuration turned into the front's, and each told what the other says.

mod config;
mod words;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plimsoll_core::{InstanceId, ServiceId};
use plimsoll_front::config::{FrontConfig, ListenerConfig};
use plimsoll_front::tls::CertificateReport;
use plimsoll_front::{Endpoint as FrontEndpoint, Front, RouteStats};
use plimsoll_guard::records::{CertificateStatus, FrontStatus, RouteStatus, TrafficStatus};
use plimsoll_guard::traffic::{News, Traffic};
use plimsoll_guard::{Endpoint, Heritage};
use plimsoll_init::Link;
use plimsoll_init::protocol::{LISTENER, ToInit};

use crate::config::Config;
pub(crate) use config::config;
use config::front_config;
use words::news;

/// Route patterns of one service in `status`; metrics have all.
const ROUTES_SHOWN: usize = 20;
/// Connections of a guard that is replaced may take so long to send their next request, and be told to come again.
const LINGER: Duration = Duration::from_secs(5);

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

/// The key under which init holds a listener, and the service manager for it.
pub(crate) fn key(listener: &ListenerConfig) -> String {
    let address = listener.address.to_string().replace(':', "_");
    format!("{LISTENER}{} {address}", if listener.tls { "https" } else { "http" })
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
        let Some(config) = front_config(&latest, &self.state, &id) else {
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
        in_flight: route.in_flight,
        failed: route.statuses[4],
        p50_ms: route.latency_within_ms(500),
        p99_ms: route.latency_within_ms(990),
    }
}
