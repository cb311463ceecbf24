//! The test world: one seed draws services, their processes and their bad days; a clock jumps from one thing to the
//! next; checkers look at every step of the head. Never shipped.
//!
//! The same head runs here as in production. What the fake kernel claims of processes, groups and signals is what the
//! contract tests of `plimsoll-kernel` claim of real ones.

mod checkers;
mod clock;
mod draw;
mod facts;
mod faults;
mod front;
mod kernel;
mod mood;
mod process;
mod replay;
mod rng;
mod world;

pub use replay::{Outcome, Violation, replay_line, run, run_traced, run_with_deaths};
pub use world::Deaths;
