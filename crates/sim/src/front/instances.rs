//! The instances as seen from the clients' side, and what may be sent to each.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_core::gate::{Gate, Outcome, Phase};
use plimsoll_core::units::Instant;
use plimsoll_core::{InstanceId, ServiceId};

use super::ledger::{Broken, Verdict, rule};

/// The longest pause of an instance that refused a connection, and a little more.
const PAUSE_MAX: Duration = Duration::from_millis(5100);
/// A fresh instance gets this many of those that waited at once, one more with each answer, and as many again each turn.
const WINDOW_FIRST: u32 = 8;
const WINDOW_TURN: Duration = Duration::from_millis(500);
/// A window this wide is none.
const WINDOW_WIDE: u32 = 1000;
/// Streams are told to end this much before the drain is over.
const STREAMS_BEFORE: Duration = Duration::from_millis(250);

/// What an instance has.
#[derive(Clone, Copy, Debug)]
struct Flying {
    admitted: bool,
    withdrawn: Option<(Instant, Duration)>,
    count: u32,
    streams: u32,
    /// Of all, those without an answer yet.
    waiting: u32,
    /// The last sign of life while any wait; or when that was last told.
    progress: Instant,
    /// Since when it has nothing to do and nothing is held against it.
    free_since: Instant,
    ejected_until: Instant,
    refused_at: Option<Instant>,
    streams_closed: bool,
    /// A crowd waited when it came, and still does: since when, and how many it has answered.
    crowd: Option<(Instant, u32)>,
}

impl Flying {
    fn new(now: Instant) -> Self {
        Self {
            admitted: true,
            withdrawn: None,
            count: 0,
            streams: 0,
            waiting: 0,
            progress: now,
            free_since: now,
            ejected_until: Instant::default(),
            refused_at: None,
            streams_closed: false,
            crowd: None,
        }
    }

    fn is_paused(&self, now: Instant) -> bool {
        self.ejected_until > now || self.refused_at.is_some_and(|at| now.since(at) <= PAUSE_MAX)
    }

    /// As many as it may have at once.
    fn window(&self, now: Instant) -> Option<u32> {
        let (since, answered) = self.crowd?;
        let turns = u32::try_from(now.since(since).as_millis() / WINDOW_TURN.as_millis()).unwrap_or(u32::MAX);
        Some(turns.saturating_add(1).saturating_mul(WINDOW_FIRST).saturating_add(answered))
            .filter(|size| *size < WINDOW_WIDE)
    }

    fn busy(&self) -> u32 {
        self.count - self.streams
    }
}

/// How long a service may go without an answer, and since when that holds.
#[derive(Clone, Copy, Debug)]
struct Hang {
    span: Duration,
    since: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Instances {
    flying: BTreeMap<InstanceId, Flying>,
    hang: BTreeMap<ServiceId, Hang>,
    /// The clock stood still or jumped last; what took long over that proves nothing.
    pub(super) disturbed: Instant,
}

impl Instances {
    pub(super) fn hang(&mut self, now: Instant, service: ServiceId, span: Duration) {
        self.hang.insert(service, Hang { span, since: now });
    }

    pub(super) fn admit(&mut self, now: Instant, id: InstanceId, crowd: bool) {
        let flying = self.flying.entry(id).or_insert_with(|| Flying::new(now));
        flying.admitted = true;
        flying.crowd = crowd.then_some((now, 0));
    }

    pub(super) fn withdraw(&mut self, now: Instant, id: InstanceId, drain: Duration) {
        if let Some(flying) = self.flying.get_mut(&id) {
            flying.admitted = false;
            flying.withdrawn = Some((now, drain));
        }
        self.pardon(now, id.service);
    }

    pub(super) fn forget(&mut self, now: Instant, id: InstanceId) {
        self.flying.remove(&id);
        self.pardon(now, id.service);
    }

    /// Where no other is left for certain, one that was left out may have requests again.
    fn pardon(&mut self, now: Instant, service: ServiceId) {
        let mut others = self.flying.iter().filter(|(id, it)| id.service == service && it.admitted);
        if !others.any(|(_, it)| !it.is_paused(now)) {
            let all = self.flying.iter_mut().filter(|(id, _)| id.service == service);
            all.for_each(|(_, it)| it.ejected_until = Instant::default());
        }
    }

    /// No crowd waits any more, so none needs holding back.
    pub(super) fn calm(&mut self, service: ServiceId) {
        let all = self.flying.iter_mut().filter(|(id, _)| id.service == service);
        all.for_each(|(_, it)| it.crowd = None);
    }

    /// One more goes there.
    pub(super) fn send(&mut self, now: Instant, id: InstanceId, in_flight_max: u32) -> Verdict {
        let paused = |(other, it): (&InstanceId, &Flying)| {
            *other != id && other.service == id.service && it.admitted && !it.is_paused(now)
        };
        let others = self.flying.iter().find(|it| paused(*it)).map(|(other, _)| *other);
        let Some(flying) = self.flying.get_mut(&id).filter(|it| it.admitted) else {
            let what = format!("something was sent to {id:?}, which may have none");
            return Err(Broken { rule: "release", what });
        };
        flying.count += 1;
        flying.waiting += 1;
        if flying.waiting == 1 {
            flying.progress = now;
        }
        let flying = *flying;
        let out = flying.ejected_until > now;
        rule("eject", !out || others.is_none(), || {
            format!("{id:?} is left out, there is {others:?}, and it gets one more: {flying:?}")
        })?;
        rule("window", flying.busy() <= in_flight_max.max(1), || {
            format!("{id:?} has more than {in_flight_max}: {flying:?}")
        })?;
        let window = flying.window(now);
        rule("window", window.is_none_or(|size| flying.busy() <= size), || {
            format!("{id:?} is fresh and stands {window:?}: {flying:?}")
        })
    }

    /// The answer has begun.
    pub(super) fn answered(&mut self, now: Instant, id: InstanceId, streams: bool) {
        if let Some(flying) = self.flying.get_mut(&id) {
            flying.waiting -= 1;
            flying.progress = now;
            flying.streams += u32::from(streams);
            flying.streams_closed &= !streams;
        }
    }

    /// What was sent there is over.
    pub(super) fn landed(&mut self, now: Instant, id: InstanceId, phase: Phase, outcome: Outcome) {
        let Some(flying) = self.flying.get_mut(&id) else { return };
        flying.count -= 1;
        flying.free_since = now;
        match phase {
            Phase::Waiting => flying.waiting -= 1,
            Phase::Answering => {}
            Phase::Streaming => flying.streams -= 1,
        }
        match outcome {
            Outcome::Served => {
                flying.progress = now;
                flying.crowd = flying.crowd.map(|(since, answered)| (since, answered + 1));
            }
            Outcome::Unreachable => {
                flying.refused_at = Some(now);
                self.pardon(now, id.service);
            }
            Outcome::Lost | Outcome::TimedOut | Outcome::Left => {}
        }
    }

    pub(super) fn stalled(&mut self, now: Instant, id: InstanceId) -> Verdict {
        let hang = self.hang.get(&id.service).copied();
        let flying = self.flying.get_mut(&id);
        let right = flying
            .as_ref()
            .zip(hang)
            .is_some_and(|(it, hang)| it.admitted && it.waiting > 0 && now.since(it.progress) >= hang.span);
        let what = format!("{id:?} is said to stall: {flying:?}, {hang:?}");
        if let Some(flying) = flying {
            flying.progress = now;
        }
        rule("stall", right, || what)
    }

    pub(super) fn streams_closed(&mut self, id: InstanceId) {
        if let Some(flying) = self.flying.get_mut(&id) {
            flying.streams_closed = true;
        }
    }

    pub(super) fn ejected(&mut self, now: Instant, id: InstanceId, pause: Duration) -> Verdict {
        let others =
            self.flying.iter().any(|(other, it)| *other != id && other.service == id.service && it.admitted);
        if let Some(flying) = self.flying.get_mut(&id) {
            flying.ejected_until = now + pause;
        }
        rule("eject", others, || format!("{id:?} is the last one and was left out"))
    }

    /// An instance is told to stop: what it still has must have had its time.
    pub(super) fn signalled(&self, now: Instant, id: InstanceId) -> Verdict {
        let Some(flying) = self.flying.get(&id) else { return Ok(()) };
        let Some((at, drain)) = flying.withdrawn else {
            return rule("drain", false, || format!("{id:?} is stopped and was never withdrawn"));
        };
        let in_time = now < at + drain;
        rule("drain", flying.busy() == 0 || !in_time, || {
            format!("{id:?} is stopped {:?} into its drain of {drain:?} with {flying:?}", now.since(at))
        })?;
        let told = flying.streams == 0 || flying.streams_closed || drain <= STREAMS_BEFORE;
        rule("drain", told, || format!("{id:?} is stopped and its streams were not told: {flying:?}"))
    }

    /// None waits while somebody has had nothing to do for longer than any pause.
    pub(super) fn nobody_idles(&self, now: Instant, service: ServiceId, since: Instant) -> Verdict {
        let idles = |id: InstanceId, it: &Flying| {
            let free = it.free_since.max(since).max(self.disturbed).max(it.ejected_until);
            id.service == service && it.admitted && it.count == 0 && now.since(free) > PAUSE_MAX
        };
        let idle = self.flying.iter().find(|(id, it)| idles(**id, it));
        rule("hold", idle.is_none(), || format!("one waited since {since:?} beside {idle:?}"))
    }

    /// After each step: the gate counts the same, and no stall went by untold.
    pub(super) fn agree(&self, now: Instant, gate: &Gate) -> Verdict {
        for (id, flying) in &self.flying {
            let (count, gates) = (flying.count, gate.in_flight(*id));
            rule("drain", count == gates, || format!("{count} in flight on {id:?}, the gate has {gates}"))?;
            let Some(hang) = self.hang.get(&id.service) else { continue };
            let since = flying.progress.max(hang.since);
            let told = !flying.admitted || flying.waiting == 0 || now <= since + hang.span;
            rule("stall", told, || {
                format!("nobody was told that {id:?} answers none: {flying:?}, {hang:?}")
            })?;
        }
        Ok(())
    }
}
