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
pub mod ledger;
pub mod logs;
pub mod placeholders;
mod probe;
pub mod records;
pub mod sweep;
pub mod tell;
pub mod traffic;
mod tree;
pub mod vaults;
mod workload;

pub use endpoint::Endpoint;
pub use ground::{Ground, host_memory};
pub use guard::{Guard, GuardError, Hooks};
pub use logs::LogBounds;
pub use workload::{Address, ProbeKind, Settings, Workload};
