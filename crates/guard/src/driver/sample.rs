//! Measuring. A measurement that fails is reported as failed; it is never a zero.

use jiff::Timestamp;
use plimsoll_core::units::Bytes;
use plimsoll_core::{Event, InstanceId, Sample};
use plimsoll_kernel::cgroup::Group;
use plimsoll_kernel::{self as kernel, Roots, procfs};

use super::Driver;
use super::running::Running;
use crate::ground::Ground;
use crate::records::SampleRow;
use crate::tree;

/// Under this part of the line the cheap reading, which counts page cache too, is proof enough that there is room.
const CHEAP_PARTS: u64 = 600;
/// With more instances than this the cheap reading is taken where it is proof enough; with fewer, the exact figure costs
/// nothing that anybody would notice.
const CHEAP_FROM: usize = 64;

impl Driver {
    pub(super) fn sample(&mut self, instance: InstanceId, descriptors: bool) {
        self.check_suspected_kill(instance);
        let Some(line) = self.seat_of(instance.service).map(|seat| seat.workload.head.memory.recycle) else {
            return;
        };
        let ground = std::sync::Arc::clone(&self.ground);
        let cheap = (self.instances.len() > CHEAP_FROM).then(|| line.scaled(CHEAP_PARTS, 1000));
        let Some(running) = self.instances.get_mut(&instance) else { return };
        match measure(&ground, running, cheap, descriptors) {
            Ok(sample) => {
                let row = SampleRow {
                    time: Timestamp::now(),
                    memory_bytes: sample.working_set.0,
                    charged_bytes: sample.charged.0,
                    descriptors: sample.descriptors,
                };
                self.ledger.sample(&running.name, &row);
                running.samples.keep(&row);
                self.tell_head(Event::Sampled { instance, sample });
            }
            // Its end is on the way to us.
            Err(_) if running.exit.is_some() || is_ending(&ground, running) => {}
            Err(error) => {
                let why = error.to_string();
                self.note_why(instance, &why);
                self.tell_head(Event::SampleFailed { instance });
            }
        }
    }
}

fn measure(
    ground: &Ground,
    running: &mut Running,
    cheap: Option<Bytes>,
    descriptors: bool,
) -> Result<Sample, kernel::Error> {
    let (working_set, charged) = memory(ground, running, cheap)?;
    let descriptors = if descriptors { Some(fullest(ground, running)?) } else { None };
    Ok(Sample { working_set: Bytes(working_set), charged: Bytes(charged), descriptors })
}

/// Working set and everything charged, in bytes. Below `cheap` the charge stands for the working set.
fn memory(ground: &Ground, running: &Running, cheap: Option<Bytes>) -> Result<(u64, u64), kernel::Error> {
    let Some(group) = &running.group else {
        let family = tree::family(&ground.roots, running.main);
        let resident = procfs::tree_memory(&ground.roots, &family)?.bytes;
        return Ok((resident, resident));
    };
    let charged = group.usage_bytes()?;
    let far = cheap.is_some_and(|cheap| Bytes(charged) < cheap);
    Ok((if far { charged } else { group.memory()?.working_set() }, charged))
}

/// The largest count of any process of the instance: limits are per process.
fn fullest(ground: &Ground, running: &mut Running) -> Result<u64, kernel::Error> {
    let roots = &ground.roots;
    let main = running.main.map_or(0, |main| main.pid);
    let mut most = count_main(roots, running, main)?;
    let members = match &running.group {
        Some(group) if is_alone(roots, group, main)? => return Ok(most),
        Some(group) => group.procs()?,
        None => tree::family(roots, running.main),
    };
    for pid in members.into_iter().filter(|pid| *pid != main) {
        // A child may end between being listed and being counted.
        most = most.max(procfs::count(roots, pid).unwrap_or(0));
    }
    Ok(most)
}

fn count_main(roots: &Roots, running: &mut Running, main: i32) -> Result<u64, kernel::Error> {
    if running.counter.as_ref().is_none_or(|counter| counter.pid() != main) {
        running.counter = procfs::Counter::of(roots, main).ok();
    }
    match &running.counter {
        Some(counter) => counter.count(roots),
        // Without a descriptor to spare it is looked up each time; a process that is gone is an error here.
        None => procfs::count(roots, main),
    }
}

/// Nobody but the main process is in the group. The kernel's list of members costs more than all else of a sample
/// together, and most services are one process: then every task in the group is a thread of it.
fn is_alone(roots: &Roots, group: &Group, main: i32) -> Result<bool, kernel::Error> {
    Ok(match group.tasks()? {
        Some(tasks @ 2..) => procfs::thread_count(roots, main)? == tasks,
        Some(0 | 1) => true,
        None => false,
    })
}

fn is_ending(ground: &Ground, running: &Running) -> bool {
    running.main.is_none_or(|main| !main.is_alive(&ground.roots))
}
