//! What people ask for: orders, status, and the end.

use std::time::Duration;

use plimsoll_core::{Event, Order, ServiceId};
use plimsoll_init::protocol::ToInit;

use super::Driver;
use crate::control::{Ask, OrderError};
use crate::workload::SHUTDOWN_SLACK;

impl Driver {
    pub(super) fn start_all(&mut self) {
        for service in self.services() {
            if !self.taken_over.contains(&service) && self.ending.is_none() {
                self.tell_head(Event::Ordered { service, order: Order::Start });
            }
        }
    }

    pub(super) fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Status(reply) => {
                let _ = reply.send(self.status());
            }
            Ask::Order { service, order, reply } => {
                let _ = reply.send(self.order(&service, order));
            }
            Ask::Reload(reply) => {
                let done = self.reload();
                self.tell_reload(&done);
                let _ = reply.send(done);
            }
            Ask::Upgrade { path, reply } => self.upgrade(&path, reply),
        }
    }

    fn order(&mut self, name: &str, order: Order) -> Result<(), OrderError> {
        if self.ending.is_some() {
            return Err(OrderError::ShuttingDown);
        }
        let service = self.service_named(name).ok_or_else(|| OrderError::UnknownService(name.to_owned()))?;
        self.tell_head(Event::Ordered { service, order });
        Ok(())
    }

    /// Told to end: every service is stopped in its own time. A second time, what is left is killed.
    pub(super) fn begin_end(&mut self) {
        self.nursery.say(&ToInit::Stopping);
        if self.ending.is_some() {
            let left: Vec<_> = self.instances.keys().copied().collect();
            for instance in left {
                self.kill_tree(instance);
            }
            return;
        }
        if let Some(tie) = &mut self.tie {
            tie.stay();
        }
        let longest = self.seats.iter().map(|seat| {
            let recovery = &seat.workload.head.recovery;
            recovery.drain + recovery.stop_grace
        });
        let longest = longest.max().unwrap_or(Duration::ZERO);
        self.ending = Some(tokio::time::Instant::now() + longest + SHUTDOWN_SLACK);
        for service in self.services() {
            self.tell_head(Event::Ordered { service, order: Order::Stop });
        }
    }

    /// Down as told, or out of time with something that not even a kill could end.
    pub(super) fn is_over(&self) -> bool {
        let Some(until) = self.ending else { return false };
        let quiet = self.instances.is_empty() && self.launches == 0;
        quiet || tokio::time::Instant::now() >= until
    }

    pub(super) fn service_named(&self, name: &str) -> Option<ServiceId> {
        self.services()
            .into_iter()
            .find(|id| self.seat_of(*id).is_some_and(|seat| seat.workload.name() == name && !seat.retired))
    }

    pub(super) fn services(&self) -> Vec<ServiceId> {
        (0u32..).take(self.seats.len()).map(ServiceId).collect()
    }
}
