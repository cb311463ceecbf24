//! The head: every decision of Plimsoll, pure.
//!
//! Events go in, actions come out, and time is an argument. Nothing here reads a clock, opens a file or knows what a
//! process is; the driver in `plimsoll-guard` does, and reports every outcome back as an event. The same head runs in
//! production and in the simulator.
//!
//! The six layers are the six files of [`layers`]. [`service`] is the state machine in which their causes meet.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod action;
mod cause;
mod config;
mod deadlines;
mod event;
pub mod gate;
mod head;
mod ids;
mod incident;
mod instance;
pub mod layers;
mod planted;
mod record;
mod saved;
mod service;
pub mod units;
mod view;

pub use action::Action;
pub use cause::{Axis, Cause, Urgency};
pub use config::*;
pub use event::{Event, Exit, Notice, OomDelta, Order, ProbeOutcome, Sample, SpawnFailure};
pub use head::Head;
pub use ids::{IncidentId, InstanceId, ServiceId};
pub use planted::Planted;
pub use record::{Kind, Layer, Record, Severity};
pub use saved::{Book, Saved, SavedService, Unreadable};
pub use service::{Found, Remains};
pub use view::{InstanceState, InstanceView, Intent, LineView, ServiceState, ServiceView};
