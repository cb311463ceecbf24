//! The front with nothing around it: one service with one instance that is always ready. For profilers, beside `bare`;
//! it builds in a tenth of the time of the whole.
//!
//! `alone LISTEN UPSTREAM`, each `ADDRESS:PORT`; one thread; SIGTERM ends it.

#[path = "../tests/support/one_service.rs"]
mod one_service;

use std::net::SocketAddr;

use one_service::{SERVICE, one_service};
use plimsoll_core::InstanceId;
use plimsoll_front::{Endpoint, Front};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut addresses = std::env::args().skip(1).map(|it| it.parse::<SocketAddr>());
    let (Some(listen), Some(upstream)) = (addresses.next().transpose()?, addresses.next().transpose()?)
    else {
        return Err("usage: alone LISTEN UPSTREAM".into());
    };
    let front = Front::start(&one_service(listen))?;
    front.admit(InstanceId { service: SERVICE, number: 1 }, "sample.1", Endpoint::Tcp(upstream));
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
