//! Ends: of main processes, of their children, of probes; and when the last process of an instance is gone.

use plimsoll_core::{Event, InstanceId};
use plimsoll_kernel::{self as kernel, reap_next};

use tokio::time::Instant;

use super::{Driver, EARLY_EXIT_KEPT, EARLY_EXITS_MAX, Owner};
use crate::records::ExitRecord;
use crate::tree;

impl Driver {
    /// Takes every child that has ended. Orphans of our instances are ours too: we are their subreaper.
    pub(super) fn reap(&mut self) {
        // Where there is init, it does that, and tells us.
        while let Some((pid, exit)) = reap_next() {
            self.ended(pid, exit);
        }
        self.check_emptying();
    }

    pub(super) fn ended(&mut self, pid: i32, exit: kernel::Exit) {
        match self.by_pid.remove(&pid) {
            Some(Owner::Main(instance)) => self.main_ended(instance, exit),
            Some(Owner::Check(ended)) => {
                let _ = ended.send(exit);
            }
            // Perhaps one whose start has not been reported to us yet.
            None if self.launches > 0 => self.keep_early_exit(pid, exit),
            None => {}
        }
    }

    pub(super) fn main_ended(&mut self, instance: InstanceId, exit: kernel::Exit) {
        let empty = self.is_empty(instance);
        let Some(running) = self.instances.get_mut(&instance) else { return };
        running.exit = Some(ExitRecord::from(exit));
        if empty {
            self.emptying.remove(&instance);
        } else {
            self.emptying.insert(instance);
        }
        let event = self.exited_event(instance, exit, empty);
        self.tell_head(event);
    }

    /// Tells the head of every instance that has become empty.
    pub(super) fn check_emptying(&mut self) {
        let waiting: Vec<InstanceId> = self.emptying.iter().copied().collect();
        for instance in waiting {
            let ended = self.instances.get(&instance).is_none_or(|it| it.exit.is_some());
            if ended && self.is_empty(instance) {
                self.emptying.remove(&instance);
                self.tell_head(Event::Emptied { instance });
            }
        }
    }

    fn is_empty(&self, instance: InstanceId) -> bool {
        let Some(running) = self.instances.get(&instance) else { return true };
        match &running.group {
            // A group that cannot be read is not known to be empty.
            Some(group) => group.is_empty().unwrap_or(false),
            None => tree::members(&self.ground.roots, running.main, &running.name).is_empty(),
        }
    }

    /// Old ones are forgotten: their pid may come again, and then with an end of its own.
    fn keep_early_exit(&mut self, pid: i32, exit: kernel::Exit) {
        let now = Instant::now();
        self.early_exits.retain(|_, (at, _)| now.duration_since(*at) < EARLY_EXIT_KEPT);
        if self.early_exits.len() < EARLY_EXITS_MAX {
            self.early_exits.insert(pid, (now, exit));
        }
    }

    /// Takes over an end that came before we knew whose it was.
    pub(super) fn take_early_exit(&mut self, pid: i32) -> Option<kernel::Exit> {
        let found = self.early_exits.remove(&pid);
        if self.launches == 0 {
            self.early_exits.clear();
        }
        found.map(|(_, exit)| exit)
    }
}

/// The kernel's word for an end, as the head takes it.
pub(super) const fn head_exit(exit: kernel::Exit) -> plimsoll_core::Exit {
    match exit {
        kernel::Exit::Code(code) => plimsoll_core::Exit::Code(code),
        kernel::Exit::Signal { number, .. } => plimsoll_core::Exit::Signal(number),
    }
}
