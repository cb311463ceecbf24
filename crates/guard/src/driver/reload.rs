//! New settings: what changed is applied, what did not is left alone, and a bad file changes nothing.

use std::sync::Arc;

use plimsoll_core::{Event, Order, ServiceConfig, ServiceId};
use plimsoll_init::protocol::ToInit;
use plimsoll_kernel::{self as kernel, limits};

use super::running::Running;
use super::{Driver, Seat};
use crate::ground::Ground;
use crate::tree;
use crate::workload::{Settings, Workload};

impl Driver {
    /// Gives a service its place in head and driver.
    pub(super) fn seat(&mut self, workload: Workload) -> ServiceId {
        let first = self.ledger.next_instance(workload.name());
        let id = self.head.add(self.head_config(&workload), first);
        self.seats.push(Seat { workload: Arc::new(workload), retired: false, last_refusal: None });
        id
    }

    /// What the head should know, with what only the host can tell filled in.
    fn head_config(&self, workload: &Workload) -> ServiceConfig {
        let mut config = workload.head.clone();
        config.memory.kernel_wakes_us = self.ground.wakes_us();
        config
    }

    /// Reads the configuration again. `Ok` says what changed.
    pub(super) fn reload(&mut self) -> Result<String, String> {
        self.nursery.say(&ToInit::Reloading);
        let done = self.read_again();
        self.nursery.say(&ToInit::Reloaded);
        done
    }

    fn read_again(&mut self) -> Result<String, String> {
        let settings = (self.reloader)()?;
        // First, since it can be refused, and then nothing is to change.
        let traffic = self.change_traffic(&self.services_after(&settings.workloads))?;
        let mut changes = Vec::new();
        for workload in &settings.workloads {
            if let Some(service) = self.service_named(workload.name()) {
                changes.extend(self.change(service, workload));
            } else {
                let service = self.seat(workload.clone());
                self.tell_head(Event::Ordered { service, order: Order::Start });
                changes.push(format!("{} added", workload.name()));
            }
        }
        changes.extend(self.retire_missing(&settings.workloads));
        changes.extend(traffic);
        self.sweeper.change(&settings.sweeps);
        self.settings = Settings { workloads: Vec::new(), ..settings };
        Ok(if changes.is_empty() { "nothing changed".to_owned() } else { changes.join(", ") })
    }

    /// Those of `wanted` by name, with the places that new ones will get.
    fn services_after(&self, wanted: &[Workload]) -> Vec<(String, ServiceId)> {
        let mut next = u32::try_from(self.seats.len()).unwrap_or(u32::MAX);
        let place = |workload: &Workload| {
            let service = self.service_named(workload.name()).unwrap_or_else(|| {
                next += 1;
                ServiceId(next - 1)
            });
            (workload.name().to_owned(), service)
        };
        wanted.iter().map(place).collect()
    }

    fn change(&mut self, service: ServiceId, workload: &Workload) -> Option<String> {
        let seat = self.seats.get_mut(service.0 as usize)?;
        if *seat.workload == *workload {
            return None;
        }
        let replace = workload.needs_new_process(&seat.workload);
        seat.workload = Arc::new(workload.clone());
        let config = self.head_config(workload);
        self.tell_head(Event::Configured { service, config });
        // A limit that cannot be moved under a running process is what a new one begins with.
        if !self.apply_limits(service, workload) || replace {
            self.tell_head(Event::Ordered { service, order: Order::Recycle });
            return Some(format!("{} changed and is being recycled", workload.name()));
        }
        Some(format!("{} changed without a restart", workload.name()))
    }

    /// Moves the limits of running instances, and the marks that the kernel watches. False where a limit stays as it was.
    fn apply_limits(&mut self, service: ServiceId, workload: &Workload) -> bool {
        let running: Vec<_> = self.instances.keys().copied().filter(|it| it.service == service).collect();
        for instance in running {
            let old = self.instances.get_mut(&instance).and_then(|it| it.watch.take());
            if let Some(watch) = old {
                self.watcher.remove(&watch);
                self.watch(instance);
            }
        }
        let mut problems = Vec::new();
        for running in self.instances.values().filter(|it| it.id.service == service) {
            let moved = [move_walls(running, workload), move_descriptors(&self.ground, running, workload)];
            problems.extend(moved.into_iter().filter_map(Result::err).map(|error| (running.id, error)));
        }
        for (instance, problem) in &problems {
            self.warn(*instance, "limit_failed", &problem.to_string());
        }
        problems.is_empty()
    }

    fn retire_missing(&mut self, wanted: &[Workload]) -> Vec<String> {
        let mut gone = Vec::new();
        for service in self.services() {
            let Some(seat) = self.seats.get_mut(service.0 as usize) else { continue };
            let name = seat.workload.name().to_owned();
            if seat.retired || wanted.iter().any(|workload| workload.name() == name) {
                continue;
            }
            seat.retired = true;
            self.tell_head(Event::Ordered { service, order: Order::Stop });
            gone.push(format!("{name} removed and stopped"));
        }
        gone
    }
}

fn move_walls(running: &Running, workload: &Workload) -> kernel::Result<()> {
    let Some(group) = &running.group else { return Ok(()) };
    group.set_wall(workload.head.memory.hard.0)?;
    group.set_tasks(workload.tasks_max)
}

/// Each process has a limit of its own.
fn move_descriptors(ground: &Ground, running: &Running, workload: &Workload) -> kernel::Result<()> {
    let limit = ground.descriptor_limit(workload.head.descriptors.limit);
    let set = |pid| match limits::set_descriptors(pid, limit) {
        // It ended meanwhile.
        Err(error) if error.is_gone() => Ok(()),
        other => other.map(drop),
    };
    let pids = match &running.group {
        Some(group) => group.procs()?,
        None => tree::family(&ground.roots, running.main),
    };
    pids.into_iter().try_for_each(set)
}
