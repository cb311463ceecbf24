//! A front with real sockets on both sides: raw clients before it, scripted upstreams behind it.

#[path = "../support/anybody.rs"]
mod anybody;
pub(crate) mod client;
#[path = "../support/one_service.rs"]
mod one_service;
pub(crate) mod upstream;
pub(crate) mod wire;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use one_service::one_service;
use plimsoll_core::InstanceId;
use plimsoll_front::config::{FrontConfig, ListenerConfig};
use plimsoll_front::tls::{CertificateConfig, FilePair};
use plimsoll_front::{Endpoint, Front};
use tempfile::TempDir;

pub(crate) use one_service::SERVICE;

/// Nothing that succeeds takes this long, also on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The name in the certificate.
pub(crate) const NAME: &str = "front.test";

/// A front, and the folder that its files are in.
pub(crate) struct World {
    pub(crate) front: Front,
    pub(crate) http: SocketAddr,
    pub(crate) folder: TempDir,
    https: Option<SocketAddr>,
}

impl World {
    /// One service for every path, nobody admitted yet.
    pub(crate) fn new(change: impl FnOnce(&mut FrontConfig)) -> Self {
        Self::build(tempfile::tempdir().unwrap(), change)
    }

    /// The same with a listener for TLS.
    pub(crate) fn with_tls(change: impl FnOnce(&mut FrontConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pair = pair(&folder);
        Self::build(folder, |config| {
            config.listeners.push(ListenerConfig { address: loopback(), tls: true });
            config.certificate = Some(CertificateConfig::Files(pair));
            change(config);
        })
    }

    fn build(folder: TempDir, change: impl FnOnce(&mut FrontConfig)) -> Self {
        let mut config = config();
        change(&mut config);
        let front = Front::start(&config).unwrap();
        let addresses = front.addresses();
        let find = |tls: bool| addresses.iter().find(|it| it.1 == tls).map(|it| it.0);
        Self { http: find(false).unwrap(), https: find(true), front, folder }
    }

    pub(crate) fn https(&self) -> SocketAddr {
        self.https.unwrap()
    }

    /// Requests go there from now on.
    pub(crate) fn admit(&self, number: u64, endpoint: &Endpoint) {
        self.front.admit(instance(number), &format!("sample.{number}"), endpoint.clone());
    }

    /// A front with one upstream that is ready.
    pub(crate) fn before(upstream: &upstream::Upstream, change: impl FnOnce(&mut FrontConfig)) -> Self {
        let world = Self::new(change);
        world.admit(1, &upstream.endpoint);
        world
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.front.traffic(SERVICE).map_or(0, |it| it.in_flight)
    }

    pub(crate) fn held(&self) -> u32 {
        self.front.traffic(SERVICE).map_or(0, |it| it.held)
    }
}

pub(crate) const fn instance(number: u64) -> InstanceId {
    InstanceId { service: SERVICE, number }
}

pub(crate) fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn config() -> FrontConfig {
    FrontConfig { fence: true, ..one_service(loopback()) }
}

fn pair(folder: &TempDir) -> FilePair {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let pair =
        FilePair { certificate: folder.path().join("certificate.pem"), key: folder.path().join("key.pem") };
    std::fs::write(&pair.certificate, made.cert.pem()).unwrap();
    std::fs::write(&pair.key, made.signing_key.serialize_pem()).unwrap();
    pair
}

/// Looks until `condition` gives something; fails with `what` at the deadline.
pub(crate) async fn until<V>(what: &str, mut condition: impl FnMut() -> Option<V>) -> V {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Lets time pass, where the passing of time is what a test is about.
pub(crate) async fn pass(span: Duration) {
    let deadline = Instant::now() + span;
    while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|it| !it.is_zero()) {
        tokio::time::sleep(left).await;
    }
}

/// Fails with `what` where it takes too long.
pub(crate) async fn soon<T>(what: &str, wanted: impl Future<Output = T>) -> T {
    let Ok(value) = tokio::time::timeout(PATIENCE * 2, wanted).await else {
        panic!("waited twice {PATIENCE:?} for: {what}");
    };
    value
}

/// Resident memory of this process, in bytes.
pub(crate) fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
