//! Measuring. A measurement that fails is reported as failed; it is never a zero.

use jiff::Timestamp;
use plimsoll_core::units::Bytes;
use plimsoll_core::{Event, InstanceId, Sample};
use plimsoll_kernel::{self as kernel, procfs};

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
    running: &Running,
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
fn fullest(ground: &Ground, running: &Running) -> Result<u64, kernel::Error> {
    let main = running.main.map_or(0, |main| main.pid);
    let mut most = procfs::count(&ground.roots, main)?;
    let members = match &running.group {
        Some(group) => group.procs()?,
        None => tree::family(&ground.roots, running.main),
    };
    for pid in members.into_iter().filter(|pid| *pid != main) {
        // A child may end between being listed and being counted.
        most = most.max(procfs::count(&ground.roots, pid).unwrap_or(0));
    }
    Ok(most)
}

fn is_ending(ground: &Ground, running: &Running) -> bool {
    running.main.is_none_or(|main| !main.is_alive(&ground.roots))
}
