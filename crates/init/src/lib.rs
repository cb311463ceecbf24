//! The parent of everything: holds the listening sockets and the services' output pipes, starts and reaps every
//! process, and starts the guard again when it ends. It decides nothing about services.
//!
//! One thread, no runtime, and [`init`] is the whole of its life in one file. What it allocates after its start are the
//! entries of two tables with a capacity (children, kept descriptors) and, for the moment of a start, the command.
//! Guard and init talk in packets ([`protocol`]); [`Link`] is the guard's end of that.

mod children;
mod command;
pub mod init;
mod kept;
mod link;
mod notify;
mod outbox;
pub mod protocol;
mod resume;
mod streak;
mod watchdog;
mod wire;

pub use link::{Held, Link, LinkError, Told};
pub use notify::Listening;
