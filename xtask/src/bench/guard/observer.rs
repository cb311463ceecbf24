//! Watches one instance from outside: when its memory crosses the line, and when its end begins.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::guard::proc;
use crate::error::{Error, Result};

/// Between two looks. A loop without a pause would take one of two cores away from what is measured.
const PAUSE: Duration = Duration::from_micros(500);
const STAT_BYTES_MAX: usize = 8192;

/// The kernel's own counts of an instance's memory, read without the guard.
#[derive(Debug)]
pub(super) struct Memory {
    stat: File,
    /// v1 keeps this count in a file of its own.
    kernel: Option<File>,
}

/// What was seen of one crossing. Both ends err to the guard's disadvantage: the time runs from the last look that still
/// found memory under the line to the first that found the end begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) over_for: Duration,
    /// The most that was seen before the end began, over the line.
    pub(super) over_bytes: u64,
    /// The longest time between two looks while it was over the line.
    pub(super) blind: Duration,
}

impl Memory {
    pub(super) fn of(pid: u32) -> Result<Self> {
        let (folder, is_v1) = proc::memory_group(pid)?;
        let open = |name: &str| {
            let path = folder.join(name);
            File::open(&path).map_err(Error::file("open", &path))
        };
        let kernel = if is_v1 { Some(open("memory.kmem.usage_in_bytes")?) } else { None };
        Ok(Self { stat: open("memory.stat")?, kernel })
    }

    /// What the line is compared with: anonymous, shared and kernel memory, never page cache. `None` once it is gone.
    pub(super) fn working_set(&self) -> Option<u64> {
        let mut buffer = [0; STAT_BYTES_MAX];
        let stat = read(&self.stat, &mut buffer)?;
        let sum = |keys: &[&str]| keys.iter().map(|key| value(stat, key).unwrap_or(0)).sum::<u64>();
        match &self.kernel {
            Some(kernel) => {
                let mut buffer = [0; 32];
                let kernel: u64 = read(kernel, &mut buffer)?.trim().parse().ok()?;
                Some(sum(&["total_rss", "total_shmem"]) + kernel)
            }
            None => Some(sum(&["anon", "shmem", "kernel", "sock"])),
        }
    }
}

/// Looks on until the process begins to end, which must be within the time and after it crossed the line.
pub(super) fn watch(pid: u32, memory: &Memory, line_bytes: u64, within: Duration) -> Result<Seen> {
    let begun = Instant::now();
    let (mut last_under, mut peak, mut blind) = (begun, 0, Duration::ZERO);
    let mut last_look = begun;
    while begun.elapsed() < within {
        let look = Instant::now();
        let working_set = memory.working_set();
        if proc::is_ending(pid) {
            if peak <= line_bytes {
                return Err(Error::Check(format!("process {pid} ended before it was over the line")));
            }
            let over_for = last_under.elapsed();
            return Ok(Seen {
                over_for,
                over_bytes: peak - line_bytes,
                blind: blind.max(last_look.elapsed()),
            });
        }
        match working_set {
            Some(bytes) if bytes <= line_bytes => (last_under, blind) = (look, Duration::ZERO),
            Some(_) => blind = blind.max(look - last_look),
            None => {}
        }
        peak = peak.max(working_set.unwrap_or(0));
        last_look = look;
        thread::sleep(PAUSE);
    }
    Err(Error::Check(format!("process {pid} still lives after {within:?}, with {peak} bytes at most")))
}

/// Until the instance uses this much.
pub(super) fn wait_for_level(memory: &Memory, level_bytes: u64, within: Duration) -> Result<()> {
    let begun = Instant::now();
    while memory.working_set().is_none_or(|bytes| bytes < level_bytes) {
        if begun.elapsed() > within {
            return Err(Error::Check(format!("memory did not reach {level_bytes} bytes within {within:?}")));
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

fn read<'a>(file: &File, buffer: &'a mut [u8]) -> Option<&'a str> {
    let length = file.read_at(buffer, 0).ok()?;
    std::str::from_utf8(buffer.get(..length)?).ok()
}

fn value(stat: &str, key: &str) -> Option<u64> {
    let number = |line: &str| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok();
    stat.lines().find_map(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_matched_whole() {
        let stat = "anon 1\nanon_thp 2\nsock 3\n";
        assert_eq!((value(stat, "anon"), value(stat, "sock"), value(stat, "so")), (Some(1), Some(3), None));
    }
}
