//! The kernel, as Plimsoll uses it: cgroups, processes, procfs, limits and notifications. Mechanisms only.
//!
//! This crate does not know what a service, a line or a recycle is: it never decides, never logs, never retries for
//! ever and keeps no history. Every error names its object and its verb ([`Error`]). Blocking calls say so and take
//! the time that they may use. It is the only crate with `unsafe`, and that is all in [`mod@spawn`], [`Signals`],
//! [`mod@inherited`] and [`let_go_of_program`].
//!
//! Linux 4.18 is enough; what newer kernels do better (`clone3` into a cgroup, `cgroup.kill`, pidfds, `close_range`,
//! `memory.oom.group`) is used when it is there, and [`cgroup::Facts`] says what is.

pub mod cgroup;
mod error;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod inherited;
pub mod limits;
mod lock;
pub mod notify;
pub mod process;
pub mod procfs;
mod program;
pub mod psi;
mod reap;
mod roots;
mod signals;
mod sockets;
pub mod spawn;
mod text;
mod users;

pub use error::{Error, Result};
pub use inherited::inherited;
pub use lock::Lock;
pub use program::let_go_of_program;
pub use reap::{Exit, become_subreaper, reap_next, reap_one};
pub use roots::Roots;
pub use signals::Signals;
pub use sockets::{PACKET_FILES_MAX, Peer, packet_pair, peer_of, receive_packet, send_packet};
pub use users::{Ids, resolve_user};
