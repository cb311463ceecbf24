//! Hostile and unlucky clients and services: what the front makes of them.
#![expect(clippy::unwrap_used, reason = "what a test sets up it may insist on")]

#[path = "../common/mod.rs"]
mod common;
mod descriptors;
mod floods;
mod forwarding;
mod http2;
mod resting;
mod semantics;
mod slow;
mod smuggling;
mod stale;
mod unlucky;
