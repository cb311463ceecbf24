//! What is wrong with a service at present, and for how long.

use std::time::Duration;

use plimsoll_core::units::Instant;
use plimsoll_core::{Exit, SpawnFailure};

use crate::draw::Build;
use crate::faults::{Answers, Fault};
use crate::process::{Manner, Shape};
use crate::rng::Rng;

/// Something that holds for a while.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spell<T>(Option<(Instant, T)>);

impl<T> Default for Spell<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Copy> Spell<T> {
    pub(crate) fn cast(&mut self, until: Instant, what: T) {
        self.0 = Some((until, what));
    }

    pub(crate) fn at(&self, now: Instant) -> Option<T> {
        self.0.filter(|(until, _)| *until > now).map(|(_, what)| what)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct OddExit {
    pub(crate) doubled: bool,
    pub(crate) unseen: bool,
    pub(crate) latency: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mood {
    pub(crate) leak: Spell<(u64, Shape)>,
    pub(crate) file_leak: Spell<u64>,
    pub(crate) crash_loop: Spell<(Duration, Exit)>,
    pub(crate) never_boots: Spell<()>,
    pub(crate) answers: Spell<Answers>,
    pub(crate) term: Spell<Option<Duration>>,
    pub(crate) orphans: Spell<Option<Duration>>,
    pub(crate) odd_exits: Spell<OddExit>,
    pub(crate) spawn_fails: Spell<SpawnFailure>,
    pub(crate) spawn_slow: Spell<Duration>,
    pub(crate) samples_fail: Spell<()>,
    pub(crate) samples_lost: Spell<()>,
    pub(crate) evidence_lost: Spell<()>,
    pub(crate) traffic_stuck: Spell<()>,
}

impl Mood {
    /// Takes what lasts; what strikes at once is left to the kernel.
    pub(crate) fn take(&mut self, now: Instant, fault: Fault) {
        match fault {
            Fault::Leak { bytes_per_second, shape, lasts } => {
                self.leak.cast(now + lasts, (bytes_per_second, shape));
            }
            Fault::FileLeak { per_second, lasts } => self.file_leak.cast(now + lasts, per_second),
            Fault::CrashLoop { life, exit, lasts } => self.crash_loop.cast(now + lasts, (life, exit)),
            Fault::NeverBoots { lasts } => self.never_boots.cast(now + lasts, ()),
            Fault::Answer { how, lasts } => self.answers.cast(now + lasts, how),
            Fault::Term { takes, lasts } => self.term.cast(now + lasts, takes),
            Fault::Orphans { stay, lasts } => self.orphans.cast(now + lasts, stay),
            Fault::OddExits { doubled, unseen, latency, lasts } => {
                self.odd_exits.cast(now + lasts, OddExit { doubled, unseen, latency });
            }
            Fault::SpawnFails { failure, lasts } => self.spawn_fails.cast(now + lasts, failure),
            Fault::SpawnSlow { takes, lasts } => self.spawn_slow.cast(now + lasts, takes),
            Fault::SamplesFail { lasts } => self.samples_fail.cast(now + lasts, ()),
            Fault::SamplesLost { lasts } => self.samples_lost.cast(now + lasts, ()),
            Fault::EvidenceLost { lasts } => self.evidence_lost.cast(now + lasts, ()),
            Fault::TrafficStuck { lasts } => self.traffic_stuck.cast(now + lasts, ()),
            Fault::Spike { .. }
            | Fault::Crash { .. }
            | Fault::Hang
            | Fault::Stuck { .. }
            | Fault::Ordered { .. }
            | Fault::TwoOperators { .. }
            | Fault::Reload
            | Fault::ClockStep { .. }
            | Fault::Freeze { .. }
            | Fault::Stale
            | Fault::Pressure
            | Fault::Stall => {}
        }
    }

    /// What a process that is born now is like.
    pub(crate) fn manner(&self, now: Instant, build: &Build, rng: &mut Rng) -> Manner {
        let looping = self.crash_loop.at(now);
        let odd = self.odd_exits.at(now);
        let never = self.never_boots.at(now).is_some();
        let orphans = self.orphans.at(now);
        Manner {
            boot: if never { Duration::from_hours(24) } else { about(build.boot, rng) },
            term: self.term.at(now).unwrap_or(Some(build.term)),
            orphans: if orphans.is_some() { 2 } else { build.children },
            orphans_stay: orphans.unwrap_or(Some(Duration::from_millis(5))),
            dies_after: looping.map(|(life, _)| life),
            exit: looping.map_or(Exit::Code(0), |(_, exit)| exit),
            exit_latency: odd.map_or(rng.latency(0, 2), |odd| odd.latency),
            exit_doubled: odd.is_some_and(|odd| odd.doubled),
            exit_unseen: odd.is_some_and(|odd| odd.unseen),
        }
    }
}

/// About as long, give or take a quarter.
fn about(span: Duration, rng: &mut Rng) -> Duration {
    span * u32::try_from(rng.between(6, 10)).unwrap_or(8) / 8
}
