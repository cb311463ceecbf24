//! The front: carries the services' requests, and holds them while an instance is replaced.
#![forbid(unsafe_code)]

pub mod acme;
pub mod tls;
