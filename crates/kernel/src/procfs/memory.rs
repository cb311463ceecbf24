//! Memory of processes, for hosts without cgroups and for evidence.

use crate::process::{Stat, read_of_process};
use crate::{Error, Result, Roots};

/// `/proc/PID/smaps_rollup` in bytes. Walking the page tables takes about 1 ms for each 100 MiB, and the process cannot
/// map memory meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rollup {
    pub rss_bytes: u64,
    /// Shared pages divided by how many share them: sums over processes are right.
    pub pss_bytes: u64,
    pub pss_anon_bytes: u64,
    pub pss_file_bytes: u64,
    pub pss_shmem_bytes: u64,
    pub private_clean_bytes: u64,
    pub private_dirty_bytes: u64,
    pub shared_clean_bytes: u64,
    pub shared_dirty_bytes: u64,
    pub anonymous_bytes: u64,
    pub anon_huge_bytes: u64,
    pub swap_bytes: u64,
    pub locked_bytes: u64,
}

impl Rollup {
    /// Needs the process's user or root. All zero for a kernel thread.
    pub fn of(roots: &Roots, pid: i32) -> Result<Self> {
        let path = roots.process_file(pid, "smaps_rollup");
        let text = read_of_process(&path, pid)?;
        if text.is_empty() {
            // A process that has exited still has the file for a moment, without content.
            return Err(Error::Gone { pid });
        }
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let Some((key, rest)) = line.split_once(':') else { continue };
            let place = match key {
                "Rss" => &mut found.rss_bytes,
                "Pss" => &mut found.pss_bytes,
                "Pss_Anon" => &mut found.pss_anon_bytes,
                "Pss_File" => &mut found.pss_file_bytes,
                "Pss_Shmem" => &mut found.pss_shmem_bytes,
                "Private_Clean" => &mut found.private_clean_bytes,
                "Private_Dirty" => &mut found.private_dirty_bytes,
                "Shared_Clean" => &mut found.shared_clean_bytes,
                "Shared_Dirty" => &mut found.shared_dirty_bytes,
                "Anonymous" => &mut found.anonymous_bytes,
                "AnonHugePages" => &mut found.anon_huge_bytes,
                "Swap" => &mut found.swap_bytes,
                "Locked" => &mut found.locked_bytes,
                _ => continue,
            };
            let kib = rest.trim().strip_suffix(" kB").and_then(|number| number.trim().parse::<u64>().ok());
            *place = kib.unwrap_or(0).saturating_mul(1024);
        }
        found
    }
}

/// How a figure was come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeasuredBy {
    Pss,
    /// Shared pages count once for each process: an overestimate, for at least one process of the tree.
    Rss,
}

/// The memory of several processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeMemory {
    pub bytes: u64,
    pub by: MeasuredBy,
    /// How many of the processes were there and counted.
    pub processes: usize,
}

/// Sums PSS, or RSS where PSS may not be read. Processes that have ended are left out; [`Error::Gone`] when all have,
/// since the sum of nothing is no reading.
pub fn tree_memory(roots: &Roots, pids: &[i32]) -> Result<TreeMemory> {
    let mut sum = TreeMemory { bytes: 0, by: MeasuredBy::Pss, processes: 0 };
    for &pid in pids {
        match one(roots, pid) {
            Ok((bytes, by)) => {
                sum.bytes = sum.bytes.saturating_add(bytes);
                sum.processes += 1;
                sum.by = if by == MeasuredBy::Rss { by } else { sum.by };
            }
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error),
        }
    }
    match (sum.processes, pids.first()) {
        (0, first) => Err(Error::Gone { pid: first.copied().unwrap_or(0) }),
        _ => Ok(sum),
    }
}

fn one(roots: &Roots, pid: i32) -> Result<(u64, MeasuredBy)> {
    if let Ok(rollup) = Rollup::of(roots, pid) {
        return Ok((rollup.pss_bytes, MeasuredBy::Pss));
    }
    let stat = Stat::of(roots, pid)?;
    if stat.has_ended() { Err(Error::Gone { pid }) } else { Ok((stat.rss_bytes(), MeasuredBy::Rss)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollup_is_in_bytes() {
        let text =
            "55d0-7ffc ---p 00000000 00:00 0 [rollup]\nRss:  884 kB\nPss:   385 kB\nSwap:  1 kB\nNew: 3 kB\n";
        let found = Rollup::parse(text);
        assert_eq!((found.rss_bytes, found.pss_bytes, found.swap_bytes), (884 << 10, 385 << 10, 1 << 10));
    }

    #[test]
    fn our_own_memory_is_measured_by_pss() {
        let own = std::process::id().cast_signed();
        let found = tree_memory(&Roots::default(), &[own, i32::MAX]).unwrap();
        assert_eq!((found.by, found.processes), (MeasuredBy::Pss, 1));
        assert!(found.bytes > 100 << 10, "{found:?}");
    }

    #[test]
    fn the_sum_of_nobody_is_not_zero_but_an_error() {
        assert!(tree_memory(&Roots::default(), &[i32::MAX]).unwrap_err().is_gone());
        assert!(tree_memory(&Roots::default(), &[]).unwrap_err().is_gone());
    }
}
