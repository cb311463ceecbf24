//! What the guard needs to know to run one service. The binary makes it from the configuration, all checked.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use plimsoll_core::ServiceConfig;
use plimsoll_core::layers::soft_limit::SoftLimit;
use plimsoll_kernel::Ids;
use plimsoll_kernel::process::Signal;

use crate::logs::LogBounds;

/// Where an instance listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A loopback port is picked for each instance and handed over in this variable and for `{port}`.
    Picked { variable: Option<String> },
    /// For programs that cannot be told.
    Fixed(SocketAddr),
    /// A Unix socket of its own for each instance, handed over for `{socket}`.
    Socket,
    /// It listens nowhere.
    None,
}

/// What is asked to learn whether an instance is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// Nothing: ready once it runs, dead when it exits.
    None,
    Tcp,
    Http {
        path: String,
    },
    Command {
        argv: Vec<String>,
    },
}

/// One service as the guard runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// What the head decides by.
    pub head: ServiceConfig,
    /// argv, with `{port}` still in it.
    pub command: Vec<String>,
    pub cwd: PathBuf,
    /// The whole environment, before the soft limit's variables and the port.
    pub env: Vec<(String, String)>,
    /// `None`: the guard's own user.
    pub ids: Option<Ids>,
    pub no_new_privs: bool,
    /// Processes and threads of one instance.
    pub tasks_max: u32,
    pub address: Address,
    pub probe: ProbeKind,
    pub stop_signal: Signal,
    pub soft_limit: SoftLimit,
    pub logs: LogBounds,
}

impl Workload {
    pub fn name(&self) -> &str {
        &self.head.name
    }

    /// Whether a change from `before` reaches a running instance only by replacing it.
    pub fn needs_new_process(&self, before: &Self) -> bool {
        self.command != before.command
            || self.cwd != before.cwd
            || self.env != before.env
            || self.ids != before.ids
            || self.no_new_privs != before.no_new_privs
            || self.address != before.address
            || self.soft_limit.variables != before.soft_limit.variables
    }
}

/// Everything that a guard is started or reloaded with.
#[derive(Clone, Debug)]
pub struct Settings {
    pub state_dir: PathBuf,
    pub socket: PathBuf,
    pub workloads: Vec<Workload>,
    pub sweeps: Vec<crate::sweep::SweepRule>,
    /// Shown in `status`.
    pub version: String,
    /// What is not as the configuration has it, in words.
    pub notes: Vec<String>,
}

/// How long a guard that was told to end waits for its services beyond their own drain and grace.
pub(crate) const SHUTDOWN_SLACK: Duration = Duration::from_secs(15);
