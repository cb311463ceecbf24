//! Certificates from an authority, by itself and for ever.
//!
//! [`Client`] is one task: it serves what is stored at once, orders what is missing, renews in time, and tries again
//! for ever. [`Challenges`] is what the listeners answer the authority with. Decisions are in [`schedule`], and pure.
//! Does not know: HTTP of the front, routes, services.

mod account;
mod challenges;
mod client;
mod config;
mod desk;
mod error;
mod http;
mod luck;
mod order;
pub mod schedule;
mod secret;
mod store;

pub use challenges::Challenges;
pub use client::Client;
pub use config::{ChallengeKinds, Config, Directory, Intervals};
pub use error::{AcmeError, ConfigError};
