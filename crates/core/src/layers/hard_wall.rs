//! Layer 2: the kernel's wall, and the verdict whether it was the wall that killed.

use crate::config::MemoryConfig;
use crate::event::{Exit, OomDelta};
use crate::units::Bytes;

const KILL: i32 = 9;
/// What a shell says of a child that was killed.
const KILLED_BELOW: i32 = 128 + KILL;
/// The strip under the wall that nothing may enter: a sixteenth of the wall, and at least this.
const MARGIN_MIN: Bytes = Bytes::mib(16);
const MARGIN_PARTS: u64 = 16;

/// Where "near the wall" begins: instances are killed there at once, and the kernel brakes them there on cgroup v2.
/// Never below the middle between line and wall, so that a small wall still leaves room over the line.
pub fn near(memory: &MemoryConfig) -> Bytes {
    let margin = memory.hard.scaled(1, MARGIN_PARTS).max(MARGIN_MIN);
    let middle = memory.recycle + (memory.hard - memory.recycle).scaled(1, 2);
    memory.hard.saturating_sub(margin).max(middle)
}

/// Whether this end was the kernel's doing at the wall. Counters alone lie (they are changes, and one kill can count
/// twice), and so does the signal alone (anybody may send it): it takes both.
pub fn was_out_of_memory(exit: Exit, oom: OomDelta) -> bool {
    let killed = match exit {
        Exit::Signal(signal) => signal == KILL,
        Exit::Code(code) => code == KILLED_BELOW,
        Exit::Unknown => true,
    };
    killed && oom.kills > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_the_wall_leaves_a_margin_and_stays_over_the_line() {
        assert_eq!(near(&MemoryConfig::default()), Bytes::mib(480));
        let small = MemoryConfig::with_defaults(None, Some(Bytes::mib(32)), Some(Bytes::mib(20)));
        assert_eq!(near(&small), Bytes::mib(26));
    }

    #[test]
    fn a_kill_without_a_counted_oom_is_somebody_elses() {
        assert!(!was_out_of_memory(Exit::Signal(9), OomDelta { kills: 0 }));
        assert!(was_out_of_memory(Exit::Signal(9), OomDelta { kills: 2 }));
    }

    #[test]
    fn a_counted_oom_of_a_child_does_not_explain_a_later_term() {
        assert!(!was_out_of_memory(Exit::Signal(15), OomDelta { kills: 1 }));
        assert!(!was_out_of_memory(Exit::Code(0), OomDelta { kills: 1 }));
        assert!(was_out_of_memory(Exit::Code(137), OomDelta { kills: 1 }));
    }
}
