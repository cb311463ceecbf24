//! A head on a bench: told what happens, moved through time, asked what it did.

use std::time::Duration;

use plimsoll_core::units::{Bytes, Instant};
use plimsoll_core::{
    Action, Event, Exit, Handover, Head, InstanceId, InstanceState, Kind, OomDelta, Order, ProbeOutcome,
    Record, Sample, ServiceConfig, ServiceId, ServiceView,
};

pub(crate) const SERVICE: ServiceId = ServiceId(0);

pub(crate) struct Bench {
    pub(crate) head: Head,
    pub(crate) now: Instant,
    done: Vec<Action>,
}

pub(crate) fn instance(number: u64) -> InstanceId {
    InstanceId { service: SERVICE, number }
}

pub(crate) fn config(handover: Handover) -> ServiceConfig {
    let mut config = ServiceConfig::named("reports");
    config.recovery.handover = handover;
    config
}

impl Bench {
    /// A service that was ordered to start.
    pub(crate) fn started(config: ServiceConfig) -> Self {
        let mut head = Head::new(1);
        head.add(config, 1);
        let mut bench = Self { head, now: Instant(1_000_000_000), done: Vec::new() };
        bench.order(Order::Start);
        bench
    }

    /// The same, with its first instance ready and its baseline taken.
    pub(crate) fn ready(config: ServiceConfig) -> Self {
        let mut bench = Self::started(config);
        bench.get_ready(1);
        bench
    }

    pub(crate) fn tell(&mut self, event: Event) {
        self.head.handle(self.now, event);
        self.done.extend(std::iter::from_fn(|| self.head.next_action()));
    }

    pub(crate) fn order(&mut self, order: Order) {
        self.tell(Event::Ordered { service: SERVICE, order });
    }

    /// Lets time pass, deadline by deadline.
    pub(crate) fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(due) = self.head.next_deadline().filter(|due| *due <= end) {
            self.now = due.max(self.now);
            self.head.handle_deadline(self.now);
            self.done.extend(std::iter::from_fn(|| self.head.next_action()));
        }
        self.now = end;
    }

    pub(crate) fn spawn(&mut self, number: u64) {
        self.tell(Event::Spawned { instance: instance(number) });
    }

    /// Spawned, booted, answering, and measured at 85 MiB.
    pub(crate) fn get_ready(&mut self, number: u64) {
        self.spawn(number);
        self.pass(Duration::from_millis(20));
        self.probed(number, ProbeOutcome::Passed { took: Duration::from_millis(2) });
        self.sampled(number, 85);
    }

    pub(crate) fn probed(&mut self, number: u64, outcome: ProbeOutcome) {
        self.tell(Event::Probed { instance: instance(number), outcome });
    }

    pub(crate) fn sampled(&mut self, number: u64, mib: u64) {
        let size = Bytes::mib(mib);
        let sample = Sample { working_set: size, charged: size, descriptors: None };
        self.tell(Event::Sampled { instance: instance(number), sample });
    }

    pub(crate) fn exited(&mut self, number: u64, exit: Exit) {
        let (instance, oom) = (instance(number), OomDelta::default());
        self.tell(Event::Exited { instance, exit, oom, tree_empty: true });
    }

    /// What was done since the last time this was asked, without measuring, probing, telling, and what requests may
    /// expect.
    pub(crate) fn did(&mut self) -> Vec<Action> {
        self.done
            .drain(..)
            .filter(|action| match action {
                Action::Sample { .. } | Action::Probe { .. } | Action::Stand { .. } | Action::Tell(_) => {
                    false
                }
                Action::Spawn { .. }
                | Action::Admit { .. }
                | Action::Withdraw { .. }
                | Action::KeepEvidence { .. }
                | Action::Signal { .. }
                | Action::KillTree { .. }
                | Action::SetHigh { .. }
                | Action::Release { .. } => true,
            })
            .collect()
    }

    /// What was put on record since `did` was last asked.
    pub(crate) fn told(&self) -> Vec<&Record> {
        self.done
            .iter()
            .filter_map(|action| if let Action::Tell(record) = action { Some(record) } else { None })
            .collect()
    }

    pub(crate) fn count_told(&self, is: impl Fn(&Kind) -> bool) -> usize {
        self.told().iter().filter(|record| is(&record.kind)).count()
    }

    pub(crate) fn count_done(&self, action: &Action) -> usize {
        self.done.iter().filter(|done| *done == action).count()
    }

    pub(crate) fn view(&self) -> ServiceView {
        self.head.view(self.now, SERVICE).expect("the service was added")
    }

    pub(crate) fn state(&self, number: u64) -> Option<InstanceState> {
        self.view().instances.iter().find(|it| it.id == instance(number)).map(|it| it.state)
    }
}
