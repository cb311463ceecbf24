//! The hands: drives the head with the kernel. Samplers, probes, evidence, ledger, logs, control socket.
//!
//! The driver alone owns state and tells the head what happens; everything that may block works beside it and reports
//! back. This crate does not know the configuration file, the command line or HTTP traffic of services.

mod beside;
pub mod control;
pub mod driver;
mod endpoint;
mod evidence;
mod ground;
mod guard;
mod heritage;
pub mod ledger;
pub mod logs;
mod nursery;
pub mod placeholders;
pub mod probe;
mod quick;
pub mod records;
mod state;
pub mod sweep;
pub mod tell;
pub mod traffic;
mod tree;
pub mod vaults;
mod workload;

pub use endpoint::Endpoint;
pub use ground::{Ground, host_memory};
pub use guard::{Ended, Guard, GuardError, Hooks};
pub use heritage::{Heritage, KEY_CONFIG, keep_text};
pub use logs::LogBounds;
pub use workload::{Address, ProbeKind, Settings, Workload};
