//! From the head's `Spawn` to a running process in its own cgroup, beside the driver.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use plimsoll_core::{Event, InstanceId, SpawnFailure};
use plimsoll_init::protocol::ChildKind;
use plimsoll_kernel::cgroup::{Group, Limits};
use plimsoll_kernel::process::Identity;
use plimsoll_kernel::{self as kernel, spawn};

use super::address::{self, AddressError};
use super::running::Running;
use super::{Driver, Owner, Report, take_over};
use crate::endpoint::Endpoint;
use crate::ground::Ground;
use crate::nursery::Nursery;
use crate::placeholders;
use crate::workload::{Address, Workload};

/// Names the instance in its own environment, so that its detached children can be told from strangers.
pub const INSTANCE_VARIABLE: &str = "PLIMSOLL_INSTANCE";
/// Names the guard, so that its next life finds what it left running where there are no cgroups to tell.
pub const GUARD_VARIABLE: &str = "PLIMSOLL_GUARD";
/// How long a group that cannot be used is waited for.
const REMOVE_WITHIN: Duration = Duration::from_millis(200);

/// A process that runs.
#[derive(Debug)]
pub(super) struct Launched {
    main: Identity,
    group: Option<Arc<Group>>,
    address: Option<Endpoint>,
    output: OwnedFd,
    /// Something could not be had and is done without.
    shortfall: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum LaunchError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("cgroup: {0}")]
    Group(kernel::Error),
    #[error("output pipe: {0}")]
    Pipe(io::Error),
    #[error("{0}")]
    Spawn(spawn::SpawnError),
}

impl LaunchError {
    fn failure(&self) -> SpawnFailure {
        match self {
            Self::Address(error) => error.failure(),
            Self::Pipe(_) => SpawnFailure::Exhausted,
            Self::Group(error) if error.is_retryable() => SpawnFailure::Exhausted,
            Self::Spawn(error) if error.is_retryable() => SpawnFailure::Exhausted,
            Self::Group(_) | Self::Spawn(_) => SpawnFailure::Refused,
        }
    }
}

impl Driver {
    pub(super) fn launch(&mut self, instance: InstanceId) {
        let Some(seat) = self.seat_of(instance.service) else { return };
        let workload = Arc::clone(&seat.workload);
        let name = format!("{}.{}", workload.name(), instance.number);
        self.ledger.note_instance(workload.name(), instance.number);
        self.instances.insert(instance, Running::new(instance, name.clone(), Timestamp::now()));
        self.launches += 1;
        let (ground, state) = (Arc::clone(&self.ground), self.settings.state_dir.clone());
        let nursery = self.nursery.clone();
        self.beside(move || {
            let outcome = launch(&ground, &nursery, &workload, &name, &state);
            Report::Launched { instance, outcome }
        });
    }

    pub(super) fn launched(&mut self, instance: InstanceId, outcome: Result<Launched, LaunchError>) {
        self.launches = self.launches.saturating_sub(1);
        match outcome {
            Ok(launched) => self.adopt(instance, launched),
            Err(error) => {
                let failure = error.failure();
                if let Some(seat) = self.seats.get_mut(instance.service.0 as usize) {
                    seat.last_refusal = Some(error.to_string());
                }
                self.tell_head(Event::SpawnFailed { instance, failure });
            }
        }
    }

    fn adopt(&mut self, instance: InstanceId, launched: Launched) {
        let Some(seat) = self.seats.get_mut(instance.service.0 as usize) else { return };
        seat.last_refusal = None;
        let workload = Arc::clone(&seat.workload);
        let pid = launched.main.pid;
        if let Some(running) = self.instances.get_mut(&instance) {
            running.main = Some(launched.main);
            running.address = launched.address;
            running.oom_before =
                launched.group.as_ref().and_then(|group| group.oom().ok()).unwrap_or_default();
            running.group = launched.group;
            let name = running.name.clone();
            self.pump.add(workload.name(), &name, launched.output, workload.logs);
        }
        if let Some(shortfall) = launched.shortfall {
            self.warn(instance, "degraded", &shortfall);
        }
        self.watch(instance);
        let ended = self.take_early_exit(pid);
        self.tell_head(Event::Spawned { instance });
        match ended {
            Some(exit) => self.main_ended(instance, exit),
            None => {
                self.by_pid.insert(pid, Owner::Main(instance));
            }
        }
    }
}

fn launch(
    ground: &Ground,
    nursery: &Nursery,
    workload: &Workload,
    name: &str,
    state: &Path,
) -> Result<Launched, LaunchError> {
    let address = address::find(&ground.roots, workload, name, state)?;
    let group = group(ground, workload, name)?;
    let mut shortfall = None;
    let (output, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| LaunchError::Pipe(error.into()))?;
    let limit = workload.head.descriptors.limit;
    let nofile = ground.descriptor_limit(limit);
    if nofile < limit {
        shortfall = Some(format!("descriptor limit {nofile} instead of {limit}: the guard may give no more"));
    }
    let mut command = command(ground, workload, &workload.command, name, address.as_ref(), writer);
    command.nofile = Some(nofile);
    if let Some(group) = &group {
        command.join = group.membership().map_err(LaunchError::Group)?;
    }
    let note = take_over::note(Timestamp::now(), address.as_ref());
    match nursery.spawn(ChildKind::Instance, name, &note, &command, Some(output.as_fd())) {
        Ok(child) => {
            Ok(Launched { main: child.identity, group: group.map(Arc::new), address, output, shortfall })
        }
        Err(error) => {
            if let Some(group) = group {
                let _ = group.remove(REMOVE_WITHIN);
            }
            Err(LaunchError::Spawn(error))
        }
    }
}

/// The instance's cgroup with its wall in force; `None` where the host has no place for one.
fn group(ground: &Ground, workload: &Workload, name: &str) -> Result<Option<Group>, LaunchError> {
    let Some(hierarchy) = &ground.hierarchy else { return Ok(None) };
    let memory = &workload.head.memory;
    let facts = hierarchy.facts();
    let limits = Limits {
        wall_bytes: memory.hard.0,
        tasks_max: facts.tasks.then_some(workload.tasks_max),
        group_kill: memory.group_kill,
    };
    let group = hierarchy.create(name, &limits).map_err(LaunchError::Group)?;
    if facts.high {
        group.set_high(Some(memory.recycle.0)).map_err(LaunchError::Group)?;
    }
    Ok(Some(group))
}

/// A command of the service, as its instance would run it: the same user, folder and environment.
pub(super) fn command(
    ground: &Ground,
    workload: &Workload,
    argv: &[String],
    name: &str,
    address: Option<&Endpoint>,
    output: OwnedFd,
) -> spawn::Command {
    let (port, socket) = (address.and_then(Endpoint::port), address.and_then(Endpoint::socket));
    let argv = argv.iter().map(|word| placeholders::substitute(word, port, socket).into()).collect();
    let mut env = environment(workload, name, port);
    set(&mut env, GUARD_VARIABLE, ground.scope.clone());
    let env = env.into_iter().map(|(key, value)| (key.into(), value.into()));
    let mut command = spawn::Command::new(argv, env.collect(), workload.cwd.clone(), output);
    command.ids.clone_from(&workload.ids);
    command.no_new_privs = workload.no_new_privs;
    // The guard may have protected itself; its services must not inherit that.
    command.oom_score_adj = Some(0);
    command
}

/// What an instance of this name is told, at this port; without the guard's own mark.
pub fn environment(workload: &Workload, name: &str, port: Option<u16>) -> Vec<(String, String)> {
    let mut env = workload.env.clone();
    for (key, value) in &workload.soft_limit.variables {
        set(&mut env, key, value.clone());
    }
    if let (Address::Picked { variable: Some(variable) }, Some(port)) = (&workload.address, port) {
        set(&mut env, variable, port.to_string());
    }
    set(&mut env, INSTANCE_VARIABLE, name.to_owned());
    env
}

fn set(env: &mut Vec<(String, String)>, key: &str, value: String) {
    env.retain(|(known, _)| known != key);
    env.push((key.to_owned(), value));
}
