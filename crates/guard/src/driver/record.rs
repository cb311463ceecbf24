//! Putting on record: what the head tells becomes an event for the operator and the ledger, and an incident grows with
//! it.

use std::time::Duration;

use jiff::Timestamp;
use plimsoll_core::{Cause, IncidentId, InstanceId, Kind, Record};
use serde_json::{Map, Value};

use super::Driver;
use crate::records::{CauseRecord, EventRecord, IncidentRecord};
use crate::tell;

/// Word of an incident's requests comes no later than this after its end.
const CLOSED_KEPT: Duration = Duration::from_secs(5);
const CLOSED_MAX: usize = 32;

impl Driver {
    pub(super) fn tell(&mut self, record: &Record) {
        let Some(seat) = self.seat_of(record.service) else { return };
        let service = seat.workload.name().to_owned();
        let why = self.why(record);
        let event = tell::event(record, &service, Timestamp::now(), why.as_deref());
        self.grow_incident(record, &event);
        self.publish(event);
    }

    /// What the driver knows beyond the head: the error's own words.
    fn why(&self, record: &Record) -> Option<String> {
        let explains = matches!(
            record.kind,
            Kind::SpawnFailed { .. }
                | Kind::ProbeFailed { .. }
                | Kind::SampleFailed { .. }
                | Kind::IncidentOpened { .. }
                | Kind::IncidentJoined { .. }
        );
        match record.cause.filter(|_| explains) {
            Some(Cause::SpawnFailed) => self.seat_of(record.service)?.last_refusal.clone(),
            None if !explains => None,
            None | Some(Cause::Unhealthy { .. } | Cause::StartTimedOut) => {
                let id = InstanceId { service: record.service, number: record.instance? };
                self.instances.get(&id)?.last_why.clone()
            }
            Some(
                Cause::Memory { .. }
                | Cause::OutOfMemory { .. }
                | Cause::Descriptors { .. }
                | Cause::Died { .. }
                | Cause::Daemonized
                | Cause::Hung
                | Cause::Ordered,
            ) => None,
        }
    }

    pub(super) fn note_why(&mut self, instance: InstanceId, why: &str) {
        if let Some(running) = self.instances.get_mut(&instance) {
            running.last_why = Some(why.to_owned());
        }
    }

    /// Something of the driver's own that an operator should see.
    pub(super) fn warn(&mut self, instance: InstanceId, kind: &str, message: &str) {
        let Some(seat) = self.seat_of(instance.service) else { return };
        let service = seat.workload.name().to_owned();
        let name = format!("{service}.{}", instance.number);
        self.publish(own_event(&service, Some(name), kind, "warning", message));
    }

    /// The same, of a service or of the guard as a whole.
    pub(super) fn say(&mut self, service: &str, kind: &str, severity: &str, message: &str) {
        self.publish(own_event(service, None, kind, severity, message));
    }

    /// The same, perhaps of one instance.
    pub(super) fn say_of(
        &mut self,
        service: &str,
        instance: Option<String>,
        kind: &str,
        severity: &str,
        message: &str,
    ) {
        self.publish(own_event(service, instance, kind, severity, message));
    }

    pub(super) fn tell_reload(&mut self, done: &Result<String, String>) {
        match done {
            Ok(changes) => {
                self.say("guard", "reloaded", "info", &format!("configuration read again: {changes}"));
            }
            Err(why) => {
                let message = format!("configuration not changed: {why}");
                self.say("guard", "reload_refused", "warning", &message);
            }
        }
    }

    fn publish(&mut self, event: EventRecord) {
        (self.on_event)(&event);
        self.ledger.event(event);
    }

    fn grow_incident(&mut self, record: &Record, event: &EventRecord) {
        if let Kind::IncidentOpened { incident } = record.kind {
            self.open_incident(incident, event);
        } else if let Kind::IncidentJoined { incident } = record.kind {
            self.update_incident(incident, |it| it.causes.push(cause_of(event)));
        } else if let Kind::IncidentClosed { incident, dark, .. } = record.kind {
            self.close_incident(incident, event.time, dark);
        } else if record.kind == Kind::Recycling {
            self.act_on_incident(record, "stopped and replaced");
        } else if record.kind == Kind::Killing {
            self.act_on_incident(record, "killed");
        } else if record.kind == Kind::Starting {
            self.note_start(record);
        }
    }

    /// After a death, a start is what was done about it; after a recycle it goes without saying.
    fn note_start(&mut self, record: &Record) {
        let Some(seat) = self.seat_of(record.service) else { return };
        let open =
            self.incidents.values().find(|it| it.service == seat.workload.name() && it.closed.is_none());
        let died = |it: &CauseRecord| matches!(it.cause.as_str(), "exit" | "oom" | "daemonized");
        if open.is_some_and(|it| it.causes.iter().any(died)) {
            self.act_on_incident(record, "started again");
        }
    }

    fn close_incident(&mut self, incident: IncidentId, time: Timestamp, dark: Duration) {
        self.update_incident(incident, |it| {
            it.action.get_or_insert_with(|| "another one took over".to_owned());
            it.closed = Some(time);
            it.dark_ms = Some(u64::try_from(dark.as_millis()).unwrap_or(u64::MAX));
        });
        // Evidence may still be on its way, and word of its requests; the incident is kept for them.
        self.closing.push((incident, tokio::time::Instant::now()));
        self.forget_closed();
    }

    fn open_incident(&mut self, incident: IncidentId, event: &EventRecord) {
        let cause = cause_of(event);
        let record = IncidentRecord {
            id: incident.0,
            service: event.service.clone(),
            instance: event.instance.clone(),
            opened: event.time,
            closed: None,
            layer: event.layer.clone(),
            summary: cause.message.clone(),
            causes: vec![cause],
            action: None,
            dark_ms: None,
            requests: None,
            evidence: None,
        };
        self.ledger.incident(record.clone());
        self.incidents.insert(incident.0, record);
        self.catch_up(incident, &event.service);
    }

    /// Remembers what was done, of the first instance that the incident is about.
    fn act_on_incident(&mut self, record: &Record, action: &str) {
        let Some(seat) = self.seat_of(record.service) else { return };
        let service = seat.workload.name().to_owned();
        let open = self.incidents.values().find(|it| it.service == service && it.closed.is_none());
        let Some(incident) = open.map(|it| IncidentId(it.id)) else { return };
        self.update_incident(incident, |it| {
            it.action = Some(match it.action.take() {
                Some(before) if before.contains(action) => before,
                Some(before) => format!("{before}, then {action}"),
                None => action.to_owned(),
            });
        });
    }

    pub(super) fn update_incident(&mut self, incident: IncidentId, change: impl FnOnce(&mut IncidentRecord)) {
        if let Some(record) = self.incidents.get_mut(&incident.0) {
            change(record);
            self.ledger.incident(record.clone());
        }
    }

    /// Closed incidents are kept only while something about them may still come.
    pub(super) fn forget_closed(&mut self) {
        let busy: Vec<IncidentId> =
            self.instances.values().filter(|it| it.taking_evidence).filter_map(|it| it.incident).collect();
        let many = self.closing.len().saturating_sub(CLOSED_MAX);
        let mut index = 0;
        self.closing.retain(|(incident, since)| {
            index += 1;
            let fresh = since.elapsed() < CLOSED_KEPT && index > many;
            let keep = busy.contains(incident) || fresh;
            if !keep {
                self.incidents.remove(&incident.0);
            }
            keep
        });
    }
}

fn own_event(
    service: &str,
    instance: Option<String>,
    kind: &str,
    severity: &str,
    message: &str,
) -> EventRecord {
    let mut detail = Map::new();
    detail.insert("message".into(), Value::from(message));
    detail.insert("severity".into(), Value::from(severity));
    EventRecord {
        time: Timestamp::now(),
        service: service.to_owned(),
        instance,
        kind: kind.to_owned(),
        layer: None,
        cause: None,
        detail,
    }
}

fn cause_of(event: &EventRecord) -> CauseRecord {
    let message = event.detail.get("message").and_then(Value::as_str).unwrap_or_default();
    // "incident 3 opened: memory …" reads twice inside the incident itself.
    let message = message.split_once(": ").map_or(message, |(_, rest)| rest).to_owned();
    let mut detail = event.detail.clone();
    for known in ["message", "severity", "incident"] {
        detail.remove(known);
    }
    CauseRecord {
        time: event.time,
        instance: event.instance.clone(),
        layer: event.layer.clone(),
        cause: event.cause.clone().unwrap_or_default(),
        message,
        detail,
    }
}
