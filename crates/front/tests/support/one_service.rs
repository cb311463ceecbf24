//! The smallest front: plain HTTP on one thread, and one service for every path.

use std::net::SocketAddr;
use std::time::Duration;

use plimsoll_core::ServiceId;
use plimsoll_front::config::{
    FrontConfig, ListenerConfig, Protocol, ReplayPolicy, RouteConfig, ServedConfig,
};

pub(crate) const SERVICE: ServiceId = ServiceId(0);

pub(crate) fn one_service(address: SocketAddr) -> FrontConfig {
    FrontConfig {
        listeners: vec![ListenerConfig { address, tls: false }],
        services: vec![ServedConfig {
            id: SERVICE,
            name: "sample".to_owned(),
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
    }
}
