//! The front: carries the services' requests, and holds them while an instance is replaced.
//!
//! It decides nothing: whether a request goes, waits or is refused, and whether it may be sent again, is
//! `plimsoll_core::gate`'s to say. Its threads share one gate and nothing else; each has its own runtime, connections
//! and pool. Built on hyper's connection builders.

#![forbid(unsafe_code)]

mod access_log;
pub mod acme;
mod answer;
mod body;
mod check;
mod clock;
pub mod config;
mod connection;
mod endpoint;
mod found;
mod front;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod hash;
mod headers;
mod joined;
mod journey;
mod line;
mod local;
mod meter;
mod patience;
mod pattern;
mod pool;
pub mod proxy_protocol;
mod reports;
mod route;
mod setup;
mod shared;
mod stats;
pub mod tls;
mod trace;
mod tunnel;
pub mod websocket;
mod worker;

pub use answer::REASON;
pub use config::FrontConfig;
pub use endpoint::Endpoint;
pub use front::{Changed, Front, FrontCounts, FrontError};
pub use pattern::PATTERNS_MAX;
pub use reports::{FrontRecord, LostRequest, ReplayedRequest, Reports, span};
pub use stats::{BUCKETS_MS, RouteStats};
