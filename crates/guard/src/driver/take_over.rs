//! Taking over from a guard that ended: its instances, its state, and a record of its end.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use plimsoll_core::{Found, InstanceId, Remains, Saved, ServiceId};
use plimsoll_init::protocol::{ToInit, Welcome};
use plimsoll_init::{Held, Link};
use plimsoll_kernel::Exit;
use plimsoll_kernel::process::{self, Signal};

use super::running::Running;
use super::{Driver, Owner};
use crate::endpoint::Endpoint;
use crate::heritage::{Heritage, KEY_STATE};
use crate::records::{CauseRecord, IncidentRecord};
use crate::state::StateFile;
use crate::tell::span_words;
use crate::tree;

/// Started, and where it listens: what the kernel does not know of an instance.
pub(super) fn note(started: Timestamp, address: Option<&Endpoint>) -> String {
    format!("{started} {}", address.map(ToString::to_string).unwrap_or_default())
}

fn read_note(note: &str) -> (Option<Timestamp>, Option<Endpoint>) {
    let (started, address) = note.split_once(' ').unwrap_or((note, ""));
    (started.parse().ok(), Endpoint::parse(address))
}

impl Driver {
    /// Goes on where the last guard stopped; with nothing to go on from, every service is started.
    pub fn take_over(&mut self, mut heritage: Heritage) {
        let saved = self.saved_state(&mut heritage);
        let (welcome, last_ended) = (heritage.welcome().clone(), heritage.ended());
        let children = heritage.take_children();
        self.init_pid = Some(welcome.init_pid);
        let mut ended = Vec::new();
        let mut found: BTreeMap<ServiceId, Vec<Found>> = BTreeMap::new();
        for held in children {
            match self.instance_named(&held.name).filter(|_| held.is_instance()) {
                Some(instance) => {
                    let end = held.end;
                    let remains = self.hold(instance, held);
                    found
                        .entry(instance.service)
                        .or_default()
                        .push(Found { number: instance.number, remains });
                    ended.extend(end.map(|exit| (instance, exit)));
                }
                None => self.end_stranger(&held, heritage.link()),
            }
        }
        if let Some(saved) = &saved {
            self.head.go_on_from_incident(saved.next_incident());
        }
        let is_first = welcome.life <= 1 && found.is_empty() && saved.is_none();
        if !is_first {
            let now = self.clock.now();
            for service in self.services() {
                let name = self.seat_of(service).map(|it| it.workload.name().to_owned()).unwrap_or_default();
                let saved = saved.as_ref().and_then(|it| it.service(&name));
                self.reopen_incident(saved.and_then(plimsoll_core::SavedService::incident));
                let found = found.get(&service).map_or(&[][..], Vec::as_slice);
                if saved.is_some() || !found.is_empty() {
                    self.taken_over.insert(service);
                    self.head.adopt(now, service, saved, found);
                }
            }
        }
        self.tell_ends(&ended, saved.as_ref());
        if welcome.ending {
            self.begin_end();
        }
        self.tell_taken_over(&welcome, last_ended, still_running(&found, &ended));
        if welcome.reduced {
            self.reduced = true;
            self.sweeper.change(&[]);
        }
    }

    fn saved_state(&mut self, heritage: &mut Heritage) -> Option<Saved> {
        let reduced = heritage.welcome().reduced;
        // What a guard may have choked on is not given to the next one.
        let kept = heritage.take(KEY_STATE).filter(|_| !reduced);
        let (state, saved) = match kept.map(StateFile::open) {
            Some((state, Ok(saved))) => (Some(state), Some(saved)),
            Some((_, Err(why))) => {
                let message = format!(
                    "what the last guard saved cannot be used: {why}; what runs is taken over without it"
                );
                self.say("guard", "state_lost", "warning", &message);
                (StateFile::create().ok(), None)
            }
            None => (StateFile::create().ok(), None),
        };
        if let (Some(tie), Some(state)) = (&mut self.tie, state) {
            tie.keep_state(state);
        }
        saved
    }

    fn instance_named(&self, name: &str) -> Option<InstanceId> {
        let (service, number) = name.rsplit_once('.')?;
        Some(InstanceId { service: self.service_named(service)?, number: number.parse().ok()? })
    }

    /// Puts an instance that was found where a launched one would be.
    fn hold(&mut self, instance: InstanceId, held: Held) -> Remains {
        let Held { name, note, identity, end, output, .. } = held;
        let (started, address) = read_note(&note);
        let mut running = Running::new(instance, name.clone(), started.unwrap_or_else(Timestamp::now));
        running.main = Some(identity);
        running.address = address;
        // Made for this life alone, so that its counts began at zero.
        running.group =
            self.ground.hierarchy.as_ref().and_then(|it| it.open(&name).ok()).map(std::sync::Arc::new);
        let remains = match end {
            None => Remains::Main,
            Some(_) if is_empty(self, &running) => Remains::Nothing,
            Some(_) => Remains::Others,
        };
        self.ledger.note_instance(name.rsplit_once('.').map_or("", |(service, _)| service), instance.number);
        self.instances.insert(instance, running);
        if let (Some(output), Some(seat)) = (output, self.seat_of(instance.service)) {
            let workload = std::sync::Arc::clone(&seat.workload);
            self.pump.add(workload.name(), &name, output, workload.logs);
        }
        if end.is_none() {
            self.by_pid.insert(identity.pid, Owner::Main(instance));
            self.watch(instance);
        }
        remains
    }

    /// Ends that came while nobody looked, as if they came now.
    fn tell_ends(&mut self, ended: &[(InstanceId, Exit)], saved: Option<&Saved>) {
        for (instance, exit) in ended {
            let name = self.seat_of(instance.service).map(|it| it.workload.name().to_owned());
            let known = name.and_then(|name| saved?.service(&name));
            if known.is_some_and(|it| it.has_exited(instance.number)) {
                if let Some(running) = self.instances.get_mut(instance) {
                    running.exit = Some((*exit).into());
                }
                self.emptying.insert(*instance);
            } else if self.head_holds(*instance) {
                self.main_ended(*instance, *exit);
            }
        }
    }

    fn head_holds(&self, instance: InstanceId) -> bool {
        let view = self.head.view(self.clock.now(), instance.service);
        view.is_some_and(|view| view.instances.iter().any(|it| it.id == instance))
    }

    /// A check of the last guard's, or an instance of a service that is not in the configuration any more.
    fn end_stranger(&self, held: &Held, link: &Link) {
        if held.end.is_some() {
            let _ = link.say(&ToInit::Forget { child: held.identity });
        } else if held.is_instance() {
            let _ = process::signal(&self.ground.roots, held.identity, Signal::KILL);
        } else {
            tree::kill_session(&self.ground.roots, held.identity);
        }
    }

    /// The record of an incident that was open goes on.
    fn reopen_incident(&mut self, id: Option<u64>) {
        if let Some(record) = id.and_then(|id| self.ledger.find_incident(id)) {
            self.incidents.insert(record.id, record);
        }
    }

    fn tell_taken_over(&mut self, welcome: &Welcome, last_ended: Timestamp, running: usize) {
        if welcome.life <= 1 {
            return;
        }
        let running = match running {
            1 => "1 instance runs on".to_owned(),
            more => format!("{more} instances run on"),
        };
        if welcome.died.is_empty() {
            let message = format!("another guard took over; {running}");
            return self.say("guard", "guard_replaced", "info", &message);
        }
        let now = Timestamp::now();
        let alone = Duration::try_from(now.duration_since(last_ended)).unwrap_or_default();
        let died = &welcome.died;
        let mut message =
            format!("the guard ended: {died}; another one took over after {}, {running}", span_words(alone));
        if welcome.reduced {
            message += "; it is reduced to what is needed, since they end too quickly";
        }
        self.say("guard", "guard_restarted", if welcome.reduced { "page" } else { "warning" }, &message);
        let cause = CauseRecord {
            time: last_ended,
            instance: None,
            layer: None,
            cause: "guard".to_owned(),
            message: format!("it ended: {died}"),
            detail: serde_json::Map::new(),
        };
        let id = self.head.next_incident().0;
        self.after_incident = Some(id);
        self.ledger.incident(IncidentRecord {
            id,
            service: "guard".to_owned(),
            instance: None,
            opened: last_ended,
            closed: Some(now),
            layer: None,
            summary: format!("the guard ended: {died}"),
            causes: vec![cause],
            action: Some(format!("another guard took over after {}, {running}", span_words(alone))),
            // No service was: the instances ran on.
            dark_ms: Some(0),
            requests: None,
            evidence: None,
        });
    }
}

/// How many of those that were found still run.
fn still_running(found: &BTreeMap<ServiceId, Vec<Found>>, ended: &[(InstanceId, Exit)]) -> usize {
    found.values().map(Vec::len).sum::<usize>().saturating_sub(ended.len())
}

fn is_empty(driver: &Driver, running: &Running) -> bool {
    match &running.group {
        Some(group) => group.is_empty().unwrap_or(false),
        None => tree::members(&driver.ground.roots, running.main, &running.name).is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_when_and_where() {
        let started: Timestamp = "2026-11-23T20:00:00Z".parse().unwrap();
        for address in [None, Endpoint::parse("127.0.0.1:4000"), Endpoint::parse("unix:/run/a b.sock")] {
            assert_eq!(read_note(&note(started, address.as_ref())), (Some(started), address));
        }
        assert_eq!(read_note(""), (None, None));
    }
}
