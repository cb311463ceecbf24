//! The guard itself is killed, at any step, and another one takes over.

use plimsoll_core::{
    Action, Event, Head, InstanceId, InstanceState, Intent, Order, Remains, Saved, ServiceId,
};

use super::World;
use crate::checkers::BEYOND_DEATH;
use crate::front::Front;
use crate::replay::Violation;

/// In one run. More of them would only be more of the same: a storm of deaths that forgets every back-off.
const DEATHS_MAX: u32 = 300;

/// When the guard is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deaths {
    None,
    /// Once, at this step.
    At(u64),
    /// Again and again, in so many of a thousand steps, for as long as there are faults.
    Often(u64),
}

/// What the next guard gets to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Killed before it saved what it decided last, and so before it did any of it.
    Before,
    /// Killed while it did what it had saved.
    Saved,
    /// The same, and the file is torn or of a later version.
    Unreadable,
}

impl World {
    pub(super) fn dies(&mut self, event: Option<&Event>) -> bool {
        if self.deaths != Deaths::None {
            self.saved_before = std::mem::replace(&mut self.saved, self.head.save().encode());
        }
        match self.deaths {
            _ if self.adopting => false,
            Deaths::None => false,
            Deaths::At(step) => self.steps == step,
            Deaths::Often(thousandths) => {
                let measured = matches!(event, Some(Event::Sampled { .. } | Event::InFlight { .. }));
                !measured
                    && self.died < DEATHS_MAX
                    && self.facts.healed.is_none()
                    && self.kernel.rng.between(0, 999) < thousandths
            }
        }
    }

    /// The end of the guard after so much of what it had decided, and the beginning of the next one.
    pub(super) fn die(&mut self, event: Option<&Event>, actions: &[Action]) -> Result<(), Violation> {
        self.died += 1;
        let told = matches!(event, Some(Event::Ordered { .. } | Event::Configured { .. }));
        let left = match self.kernel.rng.between(0, 9) {
            // Who ordered something was answered, so it is saved.
            0..=2 if !told => Left::Before,
            3 | 4 => Left::Unreadable,
            _ => Left::Saved,
        };
        let most = if left == Left::Before { 0 } else { actions.len() as u64 };
        let done = usize::try_from(self.kernel.rng.between(0, most)).unwrap_or(0);
        for action in &actions[..done] {
            self.carry_out(action)?;
        }
        self.trace.note(self.clock.head(), || format!("DEATH  of the guard, {left:?}, {done} done"));
        self.checkers.retain(|it| BEYOND_DEATH.contains(&it.name()));
        let kernel = &self.kernel;
        let is_held = |id: InstanceId| kernel.holds(id);
        for checker in &mut self.checkers {
            checker.lost(&actions[done..], left, &is_held);
            if left == Left::Unreadable {
                checker.forgotten(&is_held);
            }
        }
        self.facts.disturbed = Some(self.clock.head());
        self.kernel.guard_died();
        self.front_died();
        self.succeed(left)
    }

    /// The front is the same process: what it held and what it had sent are gone with their connections.
    fn front_died(&mut self) {
        let now = self.clock.head();
        self.front = Front::new(&mut self.kernel.rng, self.plant);
        for id in self.ids() {
            if self.kernel.has_front(id) {
                self.front.add(now, id, self.facts.services[id.0 as usize].config.health.hang);
            }
        }
    }

    fn succeed(&mut self, left: Left) -> Result<(), Violation> {
        let now = self.clock.head();
        let bytes = match left {
            Left::Before => self.saved_before.clone(),
            Left::Saved => self.saved.clone(),
            Left::Unreadable => Vec::new(),
        };
        let saved = Saved::decode(&bytes).ok();
        self.saved = bytes;
        let mut head = Head::new(saved.as_ref().map_or(1 << 20, Saved::next_incident));
        if let Some(bug) = self.plant {
            head.plant(bug);
        }
        for service in &self.facts.services {
            // As the ledger has it: no number is given twice.
            head.add(service.config.clone(), service.next_number);
        }
        let is_doomed = |id: &InstanceId| {
            let name = &self.facts.services[id.service.0 as usize].config.name;
            saved.as_ref().and_then(|it| it.service(name)).is_some_and(|it| it.is_doomed(id.number))
        };
        let mut ready = self.ready();
        ready.retain(|id| !is_doomed(id));
        self.head = head;
        let mut ended = Vec::new();
        let mut unstarted = Vec::new();
        for id in self.ids() {
            let found = self.kernel.found(id);
            let saved =
                saved.as_ref().and_then(|it| it.service(&self.facts.services[id.0 as usize].config.name));
            if saved.is_none() {
                // An operator's word is lost with the file; services run unless told otherwise.
                let intent = if found.is_empty() { Intent::Down } else { Intent::Up };
                self.facts.services[id.0 as usize].intent = intent;
                self.facts.services[id.0 as usize].ordered = now;
            }
            if saved.is_none() && found.is_empty() {
                unstarted.push(id);
                continue;
            }
            for it in &found {
                let instance = InstanceId { service: id, number: it.number };
                if it.remains != Remains::Main {
                    ended.push((instance, saved.is_some_and(|saved| saved.has_exited(it.number))));
                }
            }
            self.head.adopt(now, id, saved, &found);
        }
        // One death at a time: what follows of it belongs to it.
        self.adopting = true;
        self.step(None)?;
        self.nobody_lost(&ready, left)?;
        for (instance, known) in ended {
            self.tell_end(instance, known)?;
        }
        for service in unstarted {
            self.deliver(Event::Ordered { service, order: Order::Start })?;
        }
        self.adopting = false;
        Ok(())
    }

    fn tell_end(&mut self, instance: InstanceId, known: bool) -> Result<(), Violation> {
        let held = self.views[instance.service.0 as usize].instances.iter().any(|it| it.id == instance);
        if !held {
            return Ok(());
        }
        if !known {
            let event = self.kernel.exit_of(instance);
            return self.deliver(event);
        }
        if self.kernel.may_live(instance) { Ok(()) } else { self.deliver(Event::Emptied { instance }) }
    }

    fn ready(&self) -> Vec<InstanceId> {
        let all = self.views.iter().flat_map(|view| &view.instances);
        all.filter(|it| it.state == InstanceState::Ready).map(|it| it.id).collect()
    }

    /// Whatever lived is held, and what served goes on serving.
    fn nobody_lost(&self, ready: &[InstanceId], left: Left) -> Result<(), Violation> {
        for id in self.kernel.living() {
            let state = self.state(id);
            if state.is_none() {
                return Err(self.violation("adoption", format!("{id:?} is an orphan")));
            }
            // Without the file nobody knows who was ready; one that was sent off by what was not saved may be, too.
            let served = ready.contains(&id) && left == Left::Saved && self.kernel.has_main(id);
            if served && state != Some(InstanceState::Ready) {
                return Err(self.violation("adoption", format!("{id:?} was ready and is {state:?}")));
            }
        }
        Ok(())
    }

    fn state(&self, id: InstanceId) -> Option<InstanceState> {
        let ServiceId(service) = id.service;
        self.views[service as usize].instances.iter().find(|it| it.id == id).map(|it| it.state)
    }
}
