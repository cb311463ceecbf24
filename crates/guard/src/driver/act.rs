//! Carries out what the head decided, in its order.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_core::units::Bytes;
use plimsoll_core::{Action, Event, InstanceId, OomDelta};
use plimsoll_kernel::cgroup::Version;
use plimsoll_kernel::{self as kernel, process};

use super::address::socket_folder;
use super::exits::head_exit;
use super::{Driver, Report};
use crate::endpoint::Endpoint;
use crate::{beside, tree};

/// One kill pass; the head orders the next.
const KILL_WITHIN: Duration = Duration::from_millis(500);
/// An empty group can stay busy for a moment.
const REMOVE_WITHIN: Duration = Duration::from_secs(2);

impl Driver {
    /// Acts until the head has nothing more to say. Acting can itself tell the head something, which is then acted on.
    pub(super) fn carry_out(&mut self) {
        while let Some(action) = self.head.next_action() {
            self.step(|driver| driver.act(action));
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Tell(record) => self.tell(&record),
            Action::Spawn { instance } => self.launch(instance),
            Action::Sample { instance, descriptors } => self.sample(instance, descriptors),
            Action::Probe { instance, timeout, patience } => self.probe(instance, timeout, patience),
            Action::KeepEvidence { instance, incident, .. } => self.take_evidence(instance, incident),
            Action::Signal { instance } => self.signal(instance),
            Action::KillTree { instance } => self.kill_tree(instance),
            Action::SetHigh { instance, at } => self.set_high(instance, at),
            Action::Release { instance } => self.release(instance),
            Action::Admit { instance } => self.admit(instance),
            Action::Withdraw { instance, drain } => self.withdraw(instance, drain),
            Action::Stand { service, standing } => self.stand(service, standing),
        }
    }

    /// The service's stop signal, to its main process; children are the main process's to stop.
    fn signal(&mut self, instance: InstanceId) {
        let Some(seat) = self.seat_of(instance.service) else { return };
        let signal = seat.workload.stop_signal;
        let Some(main) = self.instances.get(&instance).and_then(|it| it.main) else { return };
        match process::signal(&self.ground.roots, main, signal) {
            Ok(()) => {}
            // Gone already: its exit is on the way.
            Err(error) if error.is_gone() => {}
            Err(error) => self.warn(instance, "signal_failed", &error.to_string()),
        }
    }

    /// Kills everything of the instance, beside the driver: outrunning a fork bomb can take a moment.
    pub(super) fn kill_tree(&mut self, instance: InstanceId) {
        let Some(running) = self.instances.get_mut(&instance) else { return };
        if running.main.is_none() && running.group.is_none() {
            return;
        }
        self.emptying.insert(instance);
        if std::mem::replace(&mut running.killing, true) {
            return;
        }
        let (group, main, name) = (running.group.clone(), running.main, running.name.clone());
        let ground = Arc::clone(&self.ground);
        self.beside(move || {
            // Whether anything is left is looked at afterwards, and the head orders the next pass.
            match &group {
                Some(group) => _ = group.kill_all(KILL_WITHIN),
                None => tree::kill_all(&ground.roots, main, &name),
            }
            Report::KillPassed { instance }
        });
    }

    pub(super) fn kill_passed(&mut self, instance: InstanceId) {
        if let Some(running) = self.instances.get_mut(&instance) {
            running.killing = false;
        }
        self.reap();
        self.check_emptying();
    }

    fn set_high(&mut self, instance: InstanceId, at: Bytes) {
        let Some(group) = self.instances.get(&instance).and_then(|it| it.group.as_ref()) else { return };
        if group.version() == Version::V1 {
            return;
        }
        if let Err(error) = group.set_high(Some(at.0)) {
            self.warn(instance, "limit_failed", &error.to_string());
        }
    }

    /// Gives back what a gone instance held, once nobody reads its cgroup for evidence any more.
    pub(super) fn release(&mut self, instance: InstanceId) {
        let Some(running) = self.instances.get_mut(&instance) else { return };
        if running.taking_evidence {
            running.release_wanted = true;
            return;
        }
        if let Some(traffic) = &self.traffic {
            traffic.forget(instance);
        }
        let Some(mut running) = self.instances.remove(&instance) else { return };
        self.emptying.remove(&instance);
        if let Some(main) = running.main {
            self.nursery.forget(main);
        }
        if let Some(watch) = running.watch.take() {
            self.watcher.remove(&watch);
        }
        if let Some(Endpoint::Unix(_)) = &running.address {
            // Left behind it would only be litter.
            let _ = std::fs::remove_dir_all(socket_folder(&self.settings.state_dir, &running.name));
        }
        if let Some(group) = running.group.take() {
            // What stays behind, for want of time or of a thread, is found and cleaned at the next start.
            let _ = beside::start(move || group.remove(REMOVE_WITHIN));
        }
    }

    /// The exit as the head takes it, with this life's out-of-memory kills.
    pub(super) fn exited_event(&self, instance: InstanceId, exit: kernel::Exit, tree_empty: bool) -> Event {
        let kills = self.instances.get(&instance).map_or(0, |it| it.oom().oom_kill);
        Event::Exited { instance, exit: head_exit(exit), oom: OomDelta { kills }, tree_empty }
    }
}
