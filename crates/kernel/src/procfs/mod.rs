//! What `/proc` says about a process beyond who it is: its memory, its descriptors, its threads.

mod descriptors;
mod listener;
mod memory;
mod sockets;
mod threads;

pub use descriptors::{Budget, Counter, DescriptorKind, KindCount, Side, Table, count, soft_limit, table};
pub use listener::{Listener, listener_of};
pub use memory::{MeasuredBy, Rollup, TreeMemory, tree_memory};
pub use sockets::TcpState;
pub use threads::{Thread, cpu_time, thread_count, threads};
