//! The front as its owner holds it.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use plimsoll_core::gate::ServiceTraffic;
use plimsoll_core::{InstanceId, ServiceId};
use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};
use tokio::sync::watch;

use crate::access_log::AccessLog;
use crate::config::{FrontConfig, ListenerConfig, Protocol, WORKERS_MAX};
use crate::endpoint::Endpoint;
use crate::local::{Ended, Local};
use crate::reports::Reports;
use crate::setup::Setup;
use crate::shared::Shared;
use crate::stats::{RouteStats, Stats};
use crate::tls::{CertificateReport, Chores, Keeper, KeeperError, Reloader, Tls};
use crate::worker::{self, Orders};

/// Connections that wait to be accepted, also while the guard is away for a moment.
const BACKLOG: i32 = 4096;
/// How often a front that leaves looks whether all have gone.
const LINGER_LOOK: Duration = Duration::from_millis(20);
const STACK_BYTES: usize = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    #[error("front: cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("front: cannot write the access log {path}: {source}")]
    AccessLog { path: std::path::PathBuf, source: io::Error },
    #[error("front: {0}")]
    Certificate(#[from] KeeperError),
    #[error("front: cannot start a thread: {0}")]
    Thread(io::Error),
}

/// Sums over the front's whole life, and what is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrontCounts {
    pub connections: u32,
    /// Of them those on HTTP/1 that hold no buffers: new ones, and those that have been silent for a second.
    pub connections_resting: u32,
    /// Ended for silence, an unfinished head, a body that stopped or dripped, a response that was not taken, requests that
    /// were called off one after the other.
    pub ended_idle: u64,
    pub ended_head: u64,
    pub ended_body: u64,
    pub ended_body_slow: u64,
    pub ended_write: u64,
    pub ended_flood: u64,
    /// Lines that the access log lost.
    pub log_lines_lost: u64,
}

/// Carries the services' requests. Everything here returns at once.
#[derive(Debug)]
pub struct Front {
    shared: Arc<Shared>,
    orders: watch::Sender<Orders>,
    stats: Vec<Arc<Mutex<Stats>>>,
    log: Arc<RwLock<Option<AccessLog>>>,
    ended: Arc<Ended>,
    config: Mutex<FrontConfig>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// What certificates there are, and how to have them looked at anew.
    kept: Option<(Tls, Reloader)>,
}

/// What new settings came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    pub anything: bool,
    /// The certificates still come from where they came from before: another place takes a new start.
    pub certificate_stays: bool,
}

impl Front {
    /// Listens, and answers from then on; what finds no instance is held or refused as its service stands.
    pub fn start(config: &FrontConfig) -> Result<Self, FrontError> {
        Self::start_on(config, Vec::new())
    }

    /// The same on sockets that somebody else has bound, such as an earlier process or the service manager. What no
    /// listener wants of them is closed; what is missing is bound.
    pub fn start_on(
        config: &FrontConfig,
        bound: Vec<(ListenerConfig, TcpListener)>,
    ) -> Result<Self, FrontError> {
        let keeper = config.certificate.as_ref().map(Keeper::open).transpose()?;
        let (kept, mut chores) = match keeper {
            Some(Keeper { tls, reloader, chores }) => (Some((tls, reloader)), Some(chores)),
            None => (None, None),
        };
        let bound = bound.into_iter().map(|(config, socket)| (config, Arc::new(socket))).collect();
        let bound = Orders { listeners: bound, ..Orders::default() };
        let listeners = bind_all(&config.listeners, &bound)?;
        let shared = Arc::new(Shared::new(config.gate, Setup::of(config)));
        shared.configure(config.gate, &config.services);
        for service in &config.services {
            // Nobody has said anything yet, and a first request can be quicker than the first word.
            shared.expected(service.id, None);
        }
        let log = Arc::new(RwLock::new(open_log(config)?));
        let (orders, following) = watch::channel(Orders { listeners, ..Orders::default() });
        let mut front = Self {
            shared,
            orders,
            stats: Vec::new(),
            log,
            ended: Arc::new(Ended::default()),
            config: Mutex::new(config.clone()),
            threads: Mutex::new(Vec::new()),
            kept,
        };
        for index in 0..workers(config.workers) {
            front.start_worker(index, following.clone(), chores.take())?;
        }
        Ok(front)
    }

    fn start_worker(
        &mut self,
        index: usize,
        orders: watch::Receiver<Orders>,
        chores: Option<Chores>,
    ) -> Result<(), FrontError> {
        let stats = Arc::new(Mutex::new(Stats::default()));
        self.stats.push(Arc::clone(&stats));
        let (shared, log, ended) = (Arc::clone(&self.shared), Arc::clone(&self.log), Arc::clone(&self.ended));
        let tls = self.kept.as_ref().map(|(tls, _)| tls.clone());
        let run = move || {
            let local = Local::new(Arc::clone(&shared), tls, stats, log, ended);
            if let Err(error) = worker::run(local, orders, index == 0, chores) {
                shared.reporter.say(
                    "front_thread_failed",
                    "page",
                    format!("a thread of the front could not run: {error}"),
                );
            }
        };
        let builder =
            std::thread::Builder::new().name(format!("plimsoll-front{index}")).stack_size(STACK_BYTES);
        let thread = builder.spawn(run).map_err(FrontError::Thread)?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// New settings. Listeners that stay keep their connections; an error changes nothing. Where certificates come from
    /// is settled at the start: [`Changed::certificate_stays`] says that it was to be another place.
    pub fn configure(&self, config: FrontConfig) -> Result<Changed, FrontError> {
        let mut current = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = Changed {
            anything: *current != config,
            certificate_stays: current.certificate != config.certificate,
        };
        let config = FrontConfig { certificate: current.certificate.clone(), ..config };
        let listeners = bind_all(&config.listeners, &self.orders.borrow())?;
        if config.access_log != current.access_log {
            let log = open_log(&config)?;
            *self.log.write().unwrap_or_else(PoisonError::into_inner) = log;
        } else if let Some(log) = &*self.log.read().unwrap_or_else(PoisonError::into_inner) {
            log.reopen();
        }
        if let Some((_, reloader)) = &self.kept {
            reloader.reload();
        }
        self.shared.configure(config.gate, &config.services);
        self.shared.change_setup(Setup::of(&config));
        self.orders.send_modify(|orders| orders.listeners = listeners);
        *current = config;
        Ok(changed)
    }

    /// The sockets, for whoever is to hold them beyond our end.
    pub fn listeners(&self) -> Vec<(ListenerConfig, Arc<TcpListener>)> {
        self.orders.borrow().listeners.clone()
    }

    /// Where it listens, with the ports that were picked for port 0.
    pub fn addresses(&self) -> Vec<(SocketAddr, bool)> {
        let orders = self.orders.borrow();
        let address = |(config, socket): &(ListenerConfig, Arc<TcpListener>)| {
            (socket.local_addr().unwrap_or(config.address), config.tls)
        };
        orders.listeners.iter().map(address).collect()
    }

    /// The instance may have requests.
    pub fn admit(&self, instance: InstanceId, name: &str, endpoint: Endpoint) {
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let protocol = config.services.iter().find(|it| it.id == instance.service).map(|it| it.protocol);
        drop(config);
        self.shared.admit(instance, name, endpoint, protocol.unwrap_or(Protocol::Http1));
    }

    /// No new requests to it. Answers how many it has; each change is reported, down to none.
    pub fn withdraw(&self, instance: InstanceId, drain: Duration) -> u32 {
        self.shared.withdraw(instance, drain)
    }

    /// It is gone.
    pub fn forget(&self, instance: InstanceId) {
        self.shared.forget(instance);
    }

    /// The service is wanted down: what waits for it is refused.
    pub fn stopped(&self, service: ServiceId) {
        self.shared.stopped(service);
    }

    /// The service is wanted up; `due_in` is when its next start is due, where it is backing off.
    pub fn expected(&self, service: ServiceId, due_in: Option<Duration>) {
        self.shared.expected(service, due_in);
    }

    /// Waits for news and takes them.
    pub async fn reports(&self) -> Reports {
        self.shared.reports().await
    }

    pub fn traffic(&self, service: ServiceId) -> Option<ServiceTraffic> {
        self.shared.traffic(service)
    }

    /// Every route pattern that was asked for, most requests first.
    pub fn routes(&self) -> Vec<RouteStats> {
        let mut all = HashMap::new();
        for stats in &self.stats {
            stats.lock().unwrap_or_else(PoisonError::into_inner).add_to(&mut all);
        }
        let mut routes: Vec<RouteStats> = all.into_values().collect();
        routes.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.pattern.cmp(&b.pattern)));
        routes
    }

    pub fn counts(&self) -> FrontCounts {
        let ended = |index: usize| self.ended.0[index].load(Ordering::Relaxed);
        let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
        FrontCounts {
            connections: self.shared.connections.load(Ordering::Relaxed),
            connections_resting: self.shared.resting.load(Ordering::Relaxed),
            ended_idle: ended(0),
            ended_head: ended(1),
            ended_body: ended(2),
            ended_body_slow: ended(3),
            ended_write: ended(4),
            ended_flood: ended(5),
            log_lines_lost: log.as_ref().map_or(0, AccessLog::lost),
        }
    }

    /// The certificates that are served, and what is wrong with them.
    pub fn certificates(&self) -> Vec<CertificateReport> {
        self.kept.as_ref().map_or_else(Vec::new, |(tls, _)| tls.certificates.report())
    }

    /// Another process accepts from now on, on the same sockets. Each connection here ends with its next answer, so that
    /// no request meets one that is just being closed.
    pub fn leave(&self) {
        self.orders.send_modify(|orders| orders.leaving = true);
    }

    /// Waits, after [`Front::leave`], until no client is connected any more, or for so long. Blocks.
    pub fn linger(&self, within: Duration) {
        let until = std::time::Instant::now() + within;
        while self.counts().connections > 0 && std::time::Instant::now() < until {
            std::thread::sleep(LINGER_LOOK);
        }
    }

    /// Accepts nothing more; requests under way finish.
    pub fn close(&self) {
        self.orders.send_modify(|orders| {
            orders.closing = true;
            orders.listeners.clear();
        });
    }

    /// Waits until all threads have ended, after [`Front::close`]. Blocks.
    pub fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.close();
    }
}

fn workers(asked: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if asked == 0 { processors.min(WORKERS_MAX) } else { asked.min(WORKERS_MAX) }
}

fn open_log(config: &FrontConfig) -> Result<Option<AccessLog>, FrontError> {
    let Some(log) = &config.access_log else { return Ok(None) };
    let failed = |source| FrontError::AccessLog { path: log.path.clone(), source };
    AccessLog::start(log).map(Some).map_err(failed)
}

/// Sockets for all of them; those that are there already are kept.
fn bind_all(
    wanted: &[ListenerConfig],
    now: &Orders,
) -> Result<Vec<(ListenerConfig, Arc<TcpListener>)>, FrontError> {
    let known = |config: &ListenerConfig| now.listeners.iter().find(|(it, _)| it == config).cloned();
    let one = |config: &ListenerConfig| match known(config) {
        Some(known) => Ok(known),
        None => bind(config.address)
            .map(|socket| (*config, Arc::new(socket)))
            .map_err(|source| FrontError::Listen { address: config.address, source }),
    };
    wanted.iter().map(one).collect()
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(SocketProtocol::TCP))?;
    // A restart finds its port again although old connections linger.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
