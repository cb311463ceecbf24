//! The guard, run as a user would run it.
//!
//! Nothing that the guard says about itself is taken for a measurement: when memory crosses a line, when a process is
//! ended and when the next one runs is seen from outside, in the kernel's own files.

mod footprint;
mod logs;
mod observer;
pub(super) mod proc;
mod restart;
pub(super) mod service;
mod simulation;
mod spike;
pub(super) mod stage;
mod start;
mod survive;

use crate::bench::Part;

/// A file each; a new one is entered here.
pub(super) const PARTS: &[Part] = &[
    Part { name: "start", run: start::run },
    Part { name: "spike", run: spike::run },
    Part { name: "restart", run: restart::run },
    Part { name: "footprint", run: footprint::run },
    Part { name: "logs", run: logs::run },
    Part { name: "survive", run: survive::run },
    Part { name: "simulation", run: simulation::run },
];
