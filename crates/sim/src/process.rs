//! One fake process tree: what it uses, how it answers and how it takes a signal.

use std::time::Duration;

use plimsoll_core::Exit;
use plimsoll_core::units::{Bytes, Instant};

/// How a process behaves for all its life; drawn when it is born.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// From birth until it answers.
    pub(crate) boot: Duration,
    /// From the stop signal until its main process ends; `None` when it ignores the signal.
    pub(crate) term: Option<Duration>,
    /// Children that stay when the main process ends.
    pub(crate) orphans: u32,
    /// How long those stay by themselves; `None` until killed.
    pub(crate) orphans_stay: Option<Duration>,
    /// From birth until it ends by itself.
    pub(crate) dies_after: Option<Duration>,
    pub(crate) exit: Exit,
    /// From an end until the driver hears of it.
    pub(crate) exit_latency: Duration,
    /// The driver tells of the end twice.
    pub(crate) exit_doubled: bool,
    /// Nobody sees the main process end; only the empty group is noticed.
    pub(crate) exit_unseen: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Linear,
    /// Twice as fast each ten seconds.
    Quickening,
    /// In lumps, once a second.
    Lumps,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Leak {
    pub(crate) since: Instant,
    pub(crate) bytes_per_second: u64,
    pub(crate) shape: Shape,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Spike {
    pub(crate) from: Instant,
    pub(crate) until: Instant,
    pub(crate) height: Bytes,
    /// Zero: one block. Otherwise up and down in this rhythm.
    pub(crate) period: Duration,
}

/// Memory over time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) base: Bytes,
    /// Page cache: charged to the group, and no part of the working set.
    pub(crate) cache: Bytes,
    /// What earlier leaks left behind.
    kept: Bytes,
    leak: Option<Leak>,
    spike: Option<Spike>,
}

impl Memory {
    pub(crate) fn new(base: Bytes, cache: Bytes) -> Self {
        Self { base, cache, kept: Bytes::ZERO, leak: None, spike: None }
    }

    pub(crate) fn level(&self, now: Instant) -> Bytes {
        let leaked = self.leak.map_or(Bytes::ZERO, |leak| leak.amount(now));
        let spike = self.spike.map_or(Bytes::ZERO, |spike| spike.amount(now));
        self.base + self.kept + leaked + spike
    }

    /// Whether the level can change without anybody doing anything.
    pub(crate) fn moves(&self, now: Instant) -> bool {
        self.leak.is_some() || self.spike.is_some_and(|spike| spike.until > now)
    }

    pub(crate) fn start_leak(&mut self, leak: Leak) {
        self.stop_leak(leak.since);
        self.leak = Some(leak);
    }

    /// What has leaked stays.
    pub(crate) fn stop_leak(&mut self, now: Instant) {
        if let Some(leak) = self.leak.take() {
            self.kept = self.kept + leak.amount(now);
        }
    }

    pub(crate) fn start_spike(&mut self, spike: Spike) {
        self.spike = Some(spike);
    }

    pub(crate) fn stop_spike(&mut self) {
        self.spike = None;
    }

    /// A child that held all the rest was killed.
    pub(crate) fn drop_to_base(&mut self, now: Instant) {
        self.kept = Bytes::ZERO;
        self.spike = None;
        if let Some(leak) = &mut self.leak {
            leak.since = now;
        }
    }
}

impl Leak {
    fn amount(&self, now: Instant) -> Bytes {
        let millis = u64::try_from(now.since(self.since).as_millis()).unwrap_or(u64::MAX);
        let millis = match self.shape {
            Shape::Linear => millis,
            Shape::Quickening => millis + millis.saturating_mul(millis) / 10_000,
            Shape::Lumps => millis / 1000 * 1000,
        };
        Bytes(self.bytes_per_second).scaled(millis, 1000)
    }
}

impl Spike {
    fn amount(&self, now: Instant) -> Bytes {
        if now < self.from || now >= self.until {
            return Bytes::ZERO;
        }
        let period = self.period.as_millis();
        if period == 0 {
            return self.height;
        }
        let phase = now.since(self.from).as_millis() % period;
        let part = u64::try_from(phase * 1000 / period).unwrap_or(0);
        self.height.scaled(part, 1000)
    }
}

/// Descriptors over time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Files {
    base: u64,
    leak: Option<(Instant, u64)>,
}

impl Files {
    pub(crate) fn new(base: u64) -> Self {
        Self { base, leak: None }
    }

    pub(crate) fn count(&self, now: Instant, limit: u64) -> u64 {
        let leaked = self.leak.map_or(0, |(since, per_second)| {
            let millis = u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
            millis.saturating_mul(per_second) / 1000
        });
        (self.base + leaked).min(limit)
    }

    pub(crate) fn start_leak(&mut self, now: Instant, per_second: u64) {
        self.leak = Some((now, per_second));
    }

    pub(crate) fn stop_leak(&mut self, now: Instant) {
        self.base = self.count(now, u64::MAX);
        self.leak = None;
    }
}

#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own about a process, and all combinations occur"
)]
pub(crate) struct Process {
    pub(crate) manner: Manner,
    pub(crate) born: Instant,
    pub(crate) main_lives: bool,
    pub(crate) children: u32,
    pub(crate) memory: Memory,
    pub(crate) files: Files,
    /// Where the kernel speaks up, and whether the level was over it at the last look.
    pub(crate) high: Bytes,
    pub(crate) was_high: bool,
    /// Answers nothing any more, until it ends.
    pub(crate) hung: bool,
    /// In uninterruptible sleep until then.
    pub(crate) stuck_until: Instant,
    pub(crate) oom_kills: u64,
    pub(crate) exit: Option<Exit>,
    /// A look at its memory is planned.
    pub(crate) ticking: bool,
}

impl Process {
    pub(crate) fn new(manner: Manner, born: Instant, memory: Memory, files: Files, high: Bytes) -> Self {
        Self {
            manner,
            born,
            main_lives: true,
            children: manner.orphans,
            memory,
            files,
            high,
            was_high: false,
            hung: false,
            stuck_until: born,
            oom_kills: 0,
            exit: None,
            ticking: false,
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.main_lives || self.children > 0
    }

    pub(crate) fn is_stuck(&self, now: Instant) -> bool {
        self.stuck_until > now
    }

    pub(crate) fn has_booted(&self, now: Instant) -> bool {
        self.main_lives && now.since(self.born) >= self.manner.boot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Instant {
        Instant(millis * 1_000_000)
    }

    #[test]
    fn what_has_leaked_stays_after_the_leak_has_stopped() {
        let mut memory = Memory::new(Bytes::mib(10), Bytes::ZERO);
        memory.start_leak(Leak { since: at(0), bytes_per_second: 1000, shape: Shape::Linear });
        memory.stop_leak(at(2000));
        assert_eq!(memory.level(at(9000)), Bytes::mib(10) + Bytes(2000));
        assert!(!memory.moves(at(9000)));
    }

    #[test]
    fn a_spike_is_over_when_its_time_is() {
        let mut memory = Memory::new(Bytes(5), Bytes::ZERO);
        memory.start_spike(Spike { from: at(10), until: at(20), height: Bytes(7), period: Duration::ZERO });
        let levels: Vec<u64> = [9, 10, 19, 20].map(|millis| memory.level(at(millis)).0).into();
        assert_eq!(levels, [5, 12, 12, 5]);
    }

    #[test]
    fn descriptors_end_at_their_limit() {
        let mut files = Files::new(20);
        files.start_leak(at(0), 100);
        assert_eq!(files.count(at(1000), 8192), 120);
        assert_eq!(files.count(at(1_000_000), 8192), 8192);
    }
}
