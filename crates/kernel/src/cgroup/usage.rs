//! What a group uses and what the kernel did to it, parsed from the kernel's files.

use crate::text;

/// Memory of a group by kind, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Heaps, stacks, private mappings.
    pub anon_bytes: u64,
    /// tmpfs, shared anonymous mappings, memfd.
    pub shmem_bytes: u64,
    /// Stacks, page tables, sockets, slab.
    pub kernel_bytes: u64,
    /// The part of `kernel_bytes` that the kernel gives back under pressure (dentries, inodes). 0 on v1, which does
    /// not say.
    pub kernel_reclaimable_bytes: u64,
    /// Page cache without shmem; given back under pressure.
    pub file_bytes: u64,
}

impl MemoryUse {
    /// What a line is compared with: what the service holds, never the page cache.
    pub const fn working_set(&self) -> u64 {
        self.anon_bytes.saturating_add(self.shmem_bytes).saturating_add(self.kernel_bytes)
    }

    /// From v2's `memory.stat`. `kernel` is a line of its own from 5.18 on; before that it is the sum of its parts.
    pub(super) fn from_v2_stat(stat: &[u8]) -> Self {
        let (mut found, mut whole, mut parts, mut file) = (Self::default(), None, 0_u64, 0);
        for (key, value) in text::pairs(stat) {
            match key {
                b"anon" => found.anon_bytes = value,
                b"file" => file = value,
                b"shmem" => found.shmem_bytes = value,
                b"kernel" => whole = Some(value),
                b"slab_reclaimable" => found.kernel_reclaimable_bytes = value,
                b"sock" | b"slab" | b"kernel_stack" | b"pagetables" | b"percpu" | b"vmalloc" => {
                    parts = parts.saturating_add(value);
                }
                _ => {}
            }
        }
        // `kernel` leaves socket buffers out, and they are the service's as well.
        found.kernel_bytes = whole.map_or(parts, |kernel| kernel.saturating_add(sock(stat)));
        found.file_bytes = file.saturating_sub(found.shmem_bytes);
        found
    }

    /// From v1's `memory.stat` (sums over the subtree) and `memory.kmem.usage_in_bytes`.
    pub(super) fn from_v1_stat(stat: &[u8], kernel_bytes: u64) -> Self {
        let mut found = Self { kernel_bytes, ..Self::default() };
        let mut cache = 0;
        for (key, value) in text::pairs(stat) {
            match key {
                b"total_rss" => found.anon_bytes = value,
                b"total_shmem" => found.shmem_bytes = value,
                b"total_cache" => cache = value,
                _ => {}
            }
        }
        found.file_bytes = cache.saturating_sub(found.shmem_bytes);
        found
    }
}

fn sock(stat: &[u8]) -> u64 {
    text::pairs(stat).find(|(key, _)| *key == b"sock").map_or(0, |(_, value)| value)
}

/// Counts of a group since it was made. Only their changes mean anything, and a change is not a number of deaths: one
/// kill of a group raises `oom_kill` once for each process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OomCounts {
    /// Reclaim because of `memory.high` (v2).
    pub high: u64,
    /// Charges that met the wall. A hint only: v1 kernels are not reliable about it (6.18 leaves it at 0).
    pub max: u64,
    /// The group's own wall could not be kept by reclaim. v1 does not count it: equal to `oom_kill` there.
    pub oom: u64,
    /// Processes that the kernel killed in the group or in one nested in it.
    pub oom_kill: u64,
    /// The group was killed as a whole (v2, from 5.17).
    pub oom_group_kill: u64,
}

impl OomCounts {
    /// What happened between an earlier reading and this one.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            high: self.high.saturating_sub(earlier.high),
            max: self.max.saturating_sub(earlier.max),
            oom: self.oom.saturating_sub(earlier.oom),
            oom_kill: self.oom_kill.saturating_sub(earlier.oom_kill),
            oom_group_kill: self.oom_group_kill.saturating_sub(earlier.oom_group_kill),
        }
    }

    /// `local` is about this group's own limits, `all` includes nested groups: the wall is ours, deaths count anywhere.
    pub(super) fn from_v2(local: &[u8], all: &[u8]) -> Self {
        let mut found = Self::default();
        for (key, value) in text::pairs(local) {
            match key {
                b"high" => found.high = value,
                b"max" => found.max = value,
                b"oom" => found.oom = value,
                _ => {}
            }
        }
        for (key, value) in text::pairs(all) {
            match key {
                b"oom_kill" => found.oom_kill = value,
                b"oom_group_kill" => found.oom_group_kill = value,
                _ => {}
            }
        }
        found
    }

    pub(super) fn from_v1(oom_kill: u64, failcnt: u64) -> Self {
        Self { high: 0, max: failcnt, oom: oom_kill, oom_kill, oom_group_kill: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v2_working_set_has_no_page_cache() {
        let stat = b"anon 1000\nfile 700\nkernel 300\nkernel_stack 100\nsock 5\nshmem 200\nslab_reclaimable 50\nslab 90\n";
        let found = MemoryUse::from_v2_stat(stat);
        assert_eq!(found.working_set(), 1000 + 200 + 300 + 5);
        assert_eq!(found.file_bytes, 500);
        assert_eq!(found.kernel_reclaimable_bytes, 50);
    }

    #[test]
    fn an_older_v2_kernel_has_its_parts_added_up() {
        let found =
            MemoryUse::from_v2_stat(b"anon 10\nfile 0\nkernel_stack 1\npercpu 2\nsock 4\nshmem 0\nslab 8\n");
        assert_eq!(found.kernel_bytes, 15);
    }

    #[test]
    fn a_v1_working_set_has_no_page_cache() {
        let stat = b"cache 1\nrss 2\ntotal_cache 900\ntotal_rss 4000\ntotal_shmem 300\n";
        let found = MemoryUse::from_v1_stat(stat, 50);
        assert_eq!(found.working_set(), 4350);
        assert_eq!(found.file_bytes, 600);
    }

    #[test]
    fn counts_are_read_locally_and_deaths_anywhere() {
        let local = b"low 0\nhigh 3\nmax 4\noom 1\noom_kill 0\noom_group_kill 0\n";
        let all = b"low 0\nhigh 9\nmax 9\noom 9\noom_kill 2\noom_group_kill 1\n";
        let counts = OomCounts::from_v2(local, all);
        assert_eq!(counts, OomCounts { high: 3, max: 4, oom: 1, oom_kill: 2, oom_group_kill: 1 });
        let earlier = OomCounts { oom_kill: 1, ..OomCounts::default() };
        assert_eq!(counts.since(&earlier).oom_kill, 1);
    }
}
