//! A configuration as the rest of the program uses it: checked, complete, with every default filled in.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use plimsoll_core::layers::soft_limit::Runtime;
use plimsoll_core::units::Bytes;
use plimsoll_core::{DescriptorConfig, HealthConfig, MemoryConfig, RecoveryConfig, ServiceConfig};
use plimsoll_front::acme::Directory;
use plimsoll_front::config::{AccessLogConfig, Limits, Network, Protocol, ReplayPolicy};

use super::secret::SecretRef;

pub const PORT_ENV_DEFAULT: &str = "PORT";
pub const LOG_SIZE_DEFAULT: Bytes = Bytes(10_000_000);
pub const LOG_KEEP_DEFAULT: u32 = 3;

/// Everything that `plimsoll.toml` says.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from, absolute; `None` for `run -- COMMAND`.
    pub source: Option<PathBuf>,
    /// What relative paths are relative to: the file's folder.
    pub folder: PathBuf,
    /// In the order of the file.
    pub services: Vec<Service>,
    pub front: Option<Front>,
    pub admin: Admin,
    pub vaults: Vec<Vault>,
    pub alerts: Option<Alerts>,
    pub sweeps: Vec<Sweep>,
    pub docker: Option<Docker>,
    /// Tables that are understood and that this version does not carry out yet; see [`super::NOT_YET`].
    pub not_yet: Vec<&'static str>,
}

#[derive(Clone, Debug)]
pub struct Service {
    pub name: String,
    /// argv, placeholders still in it; see [`super::placeholders`].
    pub command: Vec<String>,
    /// Absolute.
    pub cwd: PathBuf,
    /// Added to the guard's own environment.
    pub environment: Environment,
    /// Name or number.
    pub user: Option<String>,
    pub group: Option<String>,
    pub no_new_privs: bool,
    pub replicas: u16,
    /// Processes and threads of one instance, at most.
    pub tasks: u32,
    /// The variable that carries the picked port; `None` where none is wanted.
    pub port_env: Option<String>,
    /// A fixed address, for programs that cannot be told one.
    pub address: Option<SocketAddr>,
    /// What its instances speak with the front.
    pub protocol: Protocol,
    pub runtime: RuntimeChoice,
    pub memory: MemoryConfig,
    pub descriptors: DescriptorConfig,
    pub recovery: RecoveryConfig,
    pub stop_signal: StopSignal,
    pub check: Check,
    pub health: HealthConfig,
    pub logs: LogConfig,
}

impl Service {
    /// What the head needs to know of it.
    pub fn head(&self) -> ServiceConfig {
        ServiceConfig {
            name: self.name.clone(),
            replicas: self.replicas,
            memory: self.memory,
            descriptors: self.descriptors,
            recovery: self.recovery,
            health: self.health,
        }
    }

    /// Whether a free loopback port has to be picked for each instance.
    pub fn wants_port(&self) -> bool {
        let told = self.port_env.is_some() && !self.wants_socket();
        self.address.is_none() && (told || super::placeholders::wants_port(&self.command))
    }

    /// Whether it listens on a Unix socket that it is told, rather than on a port.
    pub fn wants_socket(&self) -> bool {
        self.address.is_none() && super::placeholders::wants_socket(&self.command)
    }

    /// Whether there is anything that the guard could connect to.
    pub fn has_address(&self) -> bool {
        self.address.is_some() || self.wants_port() || self.wants_socket()
    }
}

/// Variables of a service. Their values may be secrets, so only their names are ever shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(Vec<(String, String)>);

impl Environment {
    /// A later value of the same name replaces the earlier one.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some(entry) => entry.1 = value,
            None => self.0.push((name, value)),
        }
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// Whose soft limit is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RuntimeChoice {
    /// Told from the command.
    #[default]
    Auto,
    /// No soft limit at all.
    Off,
    Fixed(Runtime),
}

/// A signal that asks a service to stop and that it can catch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopSignal {
    name: &'static str,
    number: i32,
}

impl StopSignal {
    /// Numbers as on every Linux architecture but alpha, mips, parisc and sparc, none of which is built for.
    pub const ALL: [Self; 7] = [
        Self { name: "SIGTERM", number: 15 },
        Self { name: "SIGINT", number: 2 },
        Self { name: "SIGQUIT", number: 3 },
        Self { name: "SIGHUP", number: 1 },
        Self { name: "SIGUSR1", number: 10 },
        Self { name: "SIGUSR2", number: 12 },
        Self { name: "SIGWINCH", number: 28 },
    ];

    /// By name, with or without `SIG`.
    pub fn named(name: &str) -> Option<Self> {
        let short = |signal: &Self| signal.name.trim_start_matches("SIG") == name;
        Self::ALL.into_iter().find(|signal| signal.name == name || short(signal))
    }

    pub const fn name(self) -> &'static str {
        self.name
    }

    pub const fn number(self) -> i32 {
        self.number
    }
}

impl Default for StopSignal {
    fn default() -> Self {
        Self::ALL[0]
    }
}

/// What layer 6 asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// GET of this path; 2xx and 3xx are well.
    Http(String),
    /// A connection is accepted.
    Tcp,
    /// argv that exits 0.
    Command(Vec<String>),
    /// No check: an instance is ready once it runs.
    Nothing,
}

/// How much of a service's output is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A file is rotated at this size.
    pub size: Bytes,
    /// Files kept, the one being written included.
    pub keep: u32,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { size: LOG_SIZE_DEFAULT, keep: LOG_KEEP_DEFAULT }
    }
}

#[derive(Clone, Debug)]
pub struct Front {
    pub http: Option<SocketAddr>,
    pub https: Option<SocketAddr>,
    pub hold_wait: Duration,
    pub hold_requests: u32,
    pub hold_bytes: Bytes,
    /// Whose `X-Forwarded-*` and `Forwarded` are believed.
    pub trusted: Vec<Network>,
    /// Who begins each connection with a PROXY header.
    pub proxy_protocol: Vec<Network>,
    /// Requests like one that was in flight at two deaths are refused for a while.
    pub fence: bool,
    pub access_log: Option<AccessLogConfig>,
    /// All but `connections`.
    pub limits: Limits,
    /// `None`: as many as there are descriptors for.
    pub connections: Option<u32>,
    pub tls: Option<Tls>,
    /// Plain HTTP is answered with a redirect to HTTPS.
    pub redirect: bool,
    /// `max-age` of `Strict-Transport-Security`.
    pub hsts: Option<Duration>,
    pub routes: Vec<Route>,
}

#[derive(Clone, Debug)]
pub enum Tls {
    Files {
        certificate: PathBuf,
        key: PathBuf,
    },
    Acme {
        domains: Vec<String>,
        email: String,
        directory: Directory,
        /// PEM with roots of a private authority.
        roots: Option<PathBuf>,
        staging_first: bool,
    },
}

#[derive(Clone, Debug)]
pub struct Route {
    pub host: Option<String>,
    pub path: Option<String>,
    pub service: String,
    pub replay: ReplayPolicy,
    /// For the first byte of an answer.
    pub timeout: Option<Duration>,
}

impl Route {
    /// Every request, to one service.
    pub fn all(service: &str) -> Self {
        let service = service.to_owned();
        Self { host: None, path: None, service, replay: ReplayPolicy::Safe, timeout: None }
    }
}

#[derive(Clone, Debug)]
pub struct Admin {
    pub http: SocketAddr,
    pub token: Option<SecretRef>,
    pub socket: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct Vault {
    pub name: String,
    /// Whose database it is.
    pub service: Option<String>,
    pub database: PathBuf,
    pub to: String,
    pub every: Duration,
    pub continuous: bool,
    pub keep_daily: u32,
    pub keep_weekly: u32,
    pub keep_monthly: u32,
    /// For so long each transaction can be restored to.
    pub history: Duration,
    /// Between two restores that are compared.
    pub verify: Duration,
    /// Of the log, at which it is written into the database.
    pub pressure: Bytes,
    /// What may wait for the store.
    pub spool: Bytes,
    /// A second.
    pub bandwidth: Option<Bytes>,
    /// None: not encrypted.
    pub recipients: Vec<String>,
    pub identity: Option<SecretRef>,
}

#[derive(Clone, Debug)]
pub struct Alerts {
    pub slack: Option<SecretRef>,
    pub pagerduty: Option<SecretRef>,
    pub webhook: Option<Webhook>,
    pub email: Option<Email>,
}

#[derive(Clone, Debug)]
pub struct Webhook {
    pub url: SecretRef,
    pub secret: Option<SecretRef>,
}

#[derive(Clone, Debug)]
pub struct Email {
    pub smtp: SecretRef,
    pub to: Vec<String>,
}

/// Which processes are strays, and what happens to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// The executable, exactly.
    pub exe: PathBuf,
    /// One argument, exactly, or consecutive ones separated by spaces.
    pub args: Option<String>,
    /// At least one of `over` and `orphan_after` is set.
    pub over: Option<Bytes>,
    pub orphan_after: Option<Duration>,
    pub every: Duration,
    /// False: only reported.
    pub act: bool,
}

#[derive(Clone, Debug)]
pub struct Docker {
    pub watch: Vec<String>,
}
