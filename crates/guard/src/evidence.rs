//! What is kept of an instance before it is stopped for cause: enough to explain it afterwards, within a time that it
//! can be spared. What could not be had is listed, with the reason.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use plimsoll_kernel::Roots;
use plimsoll_kernel::cgroup::{Group, OomCounts};
use plimsoll_kernel::process::Identity;
use plimsoll_kernel::procfs::{self, Budget};

use crate::logs::{self, PumpHandle};
use crate::records::{DescriptorTable, Evidence, ExitRecord, OomRecord, SampleRow, ThreadRow, rollup_rows};

/// Lines of output kept, and how far back they are looked for.
const LOG_LINES: usize = 200;
const LOG_BYTES: u64 = 256 * 1024;
/// Threads looked at; a count of the rest is kept.
const THREADS_MAX: usize = 256;
/// The thread beside reads one small file; the allocator of an unoptimised build wants more than 64 KiB for that alone.
const STACK_BYTES: usize = 256 * 1024;
/// Descriptors looked at; past it the breakdown is of a part, and says so.
const DESCRIPTORS_MAX: usize = 16_384;

/// What evidence is taken of.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) service: String,
    pub(crate) instance: String,
    pub(crate) main: Option<Identity>,
    pub(crate) group: Option<Arc<Group>>,
    pub(crate) samples: Vec<SampleRow>,
    pub(crate) exit: Option<ExitRecord>,
    pub(crate) oom: OomCounts,
    pub(crate) descriptor_limit: u64,
    pub(crate) logs: PathBuf,
    pub(crate) budget: Duration,
}

/// Takes what goes with the process first, the slowest of it beside the rest (`smaps_rollup` walks the page tables), and
/// last what outlives the process: so the least is missing of one that is stopped meanwhile.
pub(crate) fn take(roots: &Roots, pump: &PumpHandle, scene: Scene) -> Evidence {
    let begun = Instant::now();
    let mut taker = Taker { until: begun + scene.budget, missing: Vec::new() };
    let alive = scene.main.filter(|_| scene.exit.is_none()).map(|main| main.pid);
    let (memory_stat, table, threads, smaps) = std::thread::scope(|scope| {
        let rollup = move || alive.map(|pid| procfs::Rollup::of(roots, pid));
        let beside = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, rollup);
        let memory_stat = taker.take("memory.stat", || stat(&scene)).unwrap_or_default();
        let budget = Budget { entries_max: DESCRIPTORS_MAX, within: scene.budget };
        let table = alive.and_then(|pid| taker.take("descriptors", || procfs::table(roots, pid, budget)));
        let threads =
            alive.and_then(|pid| taker.take("threads", || procfs::threads(roots, pid, THREADS_MAX)));
        // Where no thread could be had, it is taken here.
        let rolled = beside.map_or_else(|_| rollup(), |thread| thread.join().ok().flatten());
        let smaps = rolled.and_then(|rolled| taker.note("smaps_rollup", rolled));
        (memory_stat, table, threads, smaps)
    });
    pump.flush(&scene.service);
    let log_tail = logs::tail_lines(&scene.logs, &scene.service, &scene.instance, LOG_LINES, LOG_BYTES);
    if alive.is_none() {
        taker.missing.push("the process had ended: only what outlives it could be kept".to_owned());
    }
    Evidence {
        taken: Timestamp::now(),
        took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        samples: scene.samples,
        smaps_rollup: smaps.as_ref().map(rollup_rows).unwrap_or_default(),
        memory_stat,
        descriptors: table.map(|it| DescriptorTable::new(it, scene.descriptor_limit)),
        threads: threads.map(ThreadRow::summed).unwrap_or_default(),
        log_tail,
        exit: scene.exit,
        oom: OomRecord::from(scene.oom),
        missing: taker.missing,
    }
}

fn stat(scene: &Scene) -> Result<BTreeMap<String, u64>, plimsoll_kernel::Error> {
    let Some(group) = &scene.group else { return Ok(BTreeMap::new()) };
    let text = group.stat_text()?;
    let rows = text.lines().filter_map(|line| line.split_once(' '));
    Ok(rows.filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?))).collect())
}

struct Taker {
    until: Instant,
    missing: Vec<String>,
}

impl Taker {
    /// Takes one thing unless time is up, and notes what could not be had.
    fn take<T, E: std::fmt::Display>(
        &mut self,
        what: &str,
        take: impl FnOnce() -> Result<T, E>,
    ) -> Option<T> {
        if Instant::now() >= self.until {
            self.missing.push(format!("{what}: no time left"));
            return None;
        }
        self.note(what, take())
    }

    fn note<T, E: std::fmt::Display>(&mut self, what: &str, taken: Result<T, E>) -> Option<T> {
        taken.map_err(|error| self.missing.push(format!("{what}: {error}"))).ok()
    }
}
