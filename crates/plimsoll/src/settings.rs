//! From the configuration to what the guard is started with.

use std::collections::BTreeMap;
use std::path::PathBuf;

use plimsoll_core::layers::soft_limit::{self, SoftLimit};
use plimsoll_core::units::Bytes;
use plimsoll_guard::sweep::SweepRule;
use plimsoll_guard::{Address, LogBounds, ProbeKind, Settings, Workload};
use plimsoll_kernel::process::Signal;
use plimsoll_kernel::{Roots, cgroup, resolve_user};

use crate::cli::Global;
use crate::config::places::{self, Asked};
use crate::config::{self, Check, Config, Service, StopSignal, Sweep};
use crate::fit::fit;

/// Something that the configuration names and this host does not have after all.
#[derive(Debug, thiserror::Error)]
#[error("service {service}: {why}")]
pub struct SettingsError {
    service: String,
    why: String,
}

/// Where the guard keeps its state and listens, for these flags and, where it could be read, this configuration.
pub(crate) fn places(global: &Global, config: Option<&Config>) -> (PathBuf, PathBuf) {
    let asked = Asked {
        state: global.state.as_deref(),
        socket: global.socket.as_deref(),
        configured: config.and_then(|config| config.admin.socket.as_deref()),
        is_root: rustix::process::geteuid().is_root(),
    };
    let environment = |name: &str| std::env::var_os(name);
    (places::state_folder(&asked, environment), places::socket(&asked, environment))
}

/// The memory that somebody else lets us have, if anybody limits it.
pub(crate) fn room() -> Option<Bytes> {
    cgroup::room(&Roots::default()).map(Bytes)
}

pub(crate) fn settings(config: &Config, global: &Global) -> Result<Settings, SettingsError> {
    let (state_dir, socket) = places(global, Some(config));
    let mut config = config.clone();
    let notes = fit(&mut config, room());
    Ok(Settings {
        state_dir,
        socket,
        notes,
        workloads: config.services.iter().map(workload).collect::<Result<_, _>>()?,
        sweeps: config.sweeps.iter().map(sweep).collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

pub(crate) fn workload(service: &Service) -> Result<Workload, SettingsError> {
    let env = environment(service);
    let ids = match &service.user {
        Some(user) => {
            let ids = resolve_user(user, service.group.as_deref());
            Some(
                ids.map_err(|error| SettingsError { service: service.name.clone(), why: error.to_string() })?,
            )
        }
        None => None,
    };
    Ok(Workload {
        head: service.head(),
        command: service.command.clone(),
        cwd: service.cwd.clone(),
        soft_limit: soft_limit(service, &env),
        env: env.into_iter().collect(),
        ids,
        no_new_privs: service.no_new_privs,
        tasks_max: service.tasks,
        address: address(service),
        probe: match &service.check {
            Check::Http(path) => ProbeKind::Http { path: path.clone() },
            Check::Tcp => ProbeKind::Tcp,
            Check::Command(argv) => ProbeKind::Command { argv: argv.clone() },
            Check::Nothing => ProbeKind::None,
        },
        stop_signal: signal(service.stop_signal),
        logs: LogBounds { file_bytes: service.logs.size.0, files: service.logs.keep },
    })
}

fn address(service: &Service) -> Address {
    match (service.address, &service.port_env) {
        (Some(address), _) => Address::Fixed(address),
        (None, _) if service.wants_socket() => Address::Socket,
        (None, variable) if service.wants_port() => Address::Picked { variable: variable.clone() },
        (None, _) => Address::None,
    }
}

/// The guard's own environment with the service's on top.
fn environment(service: &Service) -> BTreeMap<String, String> {
    let own = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    let mut env: BTreeMap<String, String> = own.collect();
    env.extend(service.environment.iter().map(|(key, value)| (key.to_owned(), value.to_owned())));
    env
}

fn soft_limit(service: &Service, env: &BTreeMap<String, String>) -> SoftLimit {
    let Some(runtime) = config::runtime(service) else {
        return SoftLimit {
            variables: Vec::new(),
            how: "none".to_owned(),
            note: Some("turned off by memory.runtime".to_owned()),
        };
    };
    let argv: Vec<&str> = service.command.iter().map(String::as_str).collect();
    soft_limit::environment(runtime, service.memory.soft, &argv, |name| env.get(name).map(String::as_str))
}

fn signal(signal: StopSignal) -> Signal {
    match signal.name() {
        "SIGINT" => Signal::INT,
        "SIGQUIT" => Signal::QUIT,
        "SIGHUP" => Signal::HUP,
        "SIGUSR1" => Signal::USR1,
        "SIGUSR2" => Signal::USR2,
        "SIGWINCH" => Signal::WINCH,
        _ => Signal::TERM,
    }
}

pub(crate) fn sweep(sweep: &Sweep) -> SweepRule {
    SweepRule {
        exe: sweep.exe.clone(),
        args: sweep.args.clone(),
        over: sweep.over,
        orphan_after: sweep.orphan_after,
        every: sweep.every,
        act: sweep.act,
    }
}
