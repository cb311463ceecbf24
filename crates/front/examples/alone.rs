//! The front with nothing around it: one service with one instance that is always ready. For profilers, beside `bare`;
//! it builds in a tenth of the time of the whole.
//!
//! `alone LISTEN UPSTREAM`, each `ADDRESS:PORT`; one thread; SIGTERM ends it.

use std::net::SocketAddr;
use std::time::Duration;

use plimsoll_core::{InstanceId, ServiceId};
use plimsoll_front::config::{
    FrontConfig, ListenerConfig, Protocol, ReplayPolicy, RouteConfig, ServedConfig,
};
use plimsoll_front::{Endpoint, Front};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const SERVICE: ServiceId = ServiceId(0);

fn main() -> Result<(), Failure> {
    let mut addresses = std::env::args().skip(1).map(|it| it.parse::<SocketAddr>());
    let (Some(listen), Some(upstream)) = (addresses.next().transpose()?, addresses.next().transpose()?)
    else {
        return Err("usage: alone LISTEN UPSTREAM".into());
    };
    let config = FrontConfig {
        listeners: vec![ListenerConfig { address: listen, tls: false }],
        services: vec![ServedConfig {
            id: SERVICE,
            name: "upstream".to_owned(),
            hang: Duration::from_secs(2),
            protocol: Protocol::Http1,
        }],
        routes: vec![RouteConfig {
            host: None,
            path: None,
            service: SERVICE,
            replay: ReplayPolicy::Safe,
            timeout: None,
        }],
        workers: 1,
        ..FrontConfig::default()
    };
    let front = Front::start(&config)?;
    front.admit(InstanceId { service: SERVICE, number: 1 }, "upstream.1", Endpoint::Tcp(upstream));
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut ended = signal(SignalKind::terminate())?;
        ended.recv().await;
        Ok::<(), std::io::Error>(())
    })?;
    front.close();
    front.join();
    Ok(())
}
