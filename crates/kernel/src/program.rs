//! The pages of this program's own file that are in memory for it.
#![expect(unsafe_code, reason = "the kernel is told which of our pages are not needed")]

use std::ffi::c_void;
use std::ops::Range;

use rustix::mm::{Advice, madvise};

use crate::error::{Error, Result};

/// Gives back what was mapped of this program's file up to now, such as all that ran only while it started: what runs
/// again is mapped again, mostly from the page cache. The number of bytes is that of the mappings, not of what was there.
pub fn let_go_of_program() -> Result<usize> {
    const PATH: &str = "/proc/self/smaps";
    let smaps = std::fs::read_to_string(PATH).map_err(|source| Error::file("read", PATH, source))?;
    let mut bytes = 0;
    for Range { start, end } in clean(&smaps) {
        let at = std::ptr::with_exposed_provenance_mut::<c_void>(start);
        // SAFETY: the mapping is one of a file, may not be written to, and has no page that differs from the file's. What
        // is read there afterwards is what was there before.
        if unsafe { madvise(at, end - start, Advice::LinuxDontNeed) }.is_ok() {
            bytes += end - start;
        }
    }
    Ok(bytes)
}

/// The private mappings of files that cannot have changed: not writable, and without a page of their own. What a loader
/// has relocated and then made read-only has such pages.
fn clean(smaps: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut candidate = None;
    for line in smaps.lines() {
        if let Some(kib) = line.strip_prefix("Anonymous:") {
            found.extend(candidate.take().filter(|_| kib.trim() == "0 kB"));
        } else if let Some(mapping) = mapping(line) {
            candidate = mapping.is_constant.then_some(mapping.range);
        }
    }
    found
}

struct Mapping {
    range: Range<usize>,
    is_constant: bool,
}

/// `START-END PERMISSIONS OFFSET DEVICE INODE PATH`, as proc(5) has it; `None` for the lines in between.
fn mapping(line: &str) -> Option<Mapping> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let address = |word| usize::from_str_radix(word, 16).ok();
    let (range, permissions) = (address(start)?..address(end)?, words.next()?);
    let inode = words.nth(2)?;
    let is_constant = matches!(permissions, "r--p" | "r-xp") && inode != "0";
    Some(Mapping { range, is_constant })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
7f15fe000000-7f15fe04c000 r--p 00000000 fe:00 1573 /usr/bin/plimsoll
Rss:                 304 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
7f15fe04c000-7f15feda7000 r-xp 0004c000 fe:00 1573 /usr/bin/plimsoll
Rss:                1180 kB
Anonymous:             0 kB
7f15feda7000-7f15feda8000 r-xp 0004c000 fe:00 1573 /usr/bin/with-a-breakpoint
Anonymous:             4 kB
7f15ff0ef000-7f15ff124000 r--p 00da7000 fe:00 1573 /usr/bin/relocated
Anonymous:           212 kB
7f15ff124000-7f15ff129000 rw-p 010ee000 fe:00 1573 /usr/bin/plimsoll
Anonymous:             0 kB
7f15ff200000-7f15ff210000 r--s 00000000 fe:00 99 /var/lib/shared
Anonymous:             0 kB
7f15ff300000-7f15ff302000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
";

    #[test]
    fn only_what_is_as_the_file_has_it_is_let_go() {
        assert_eq!(clean(SMAPS), [0x7f15_fe00_0000..0x7f15_fe04_c000, 0x7f15_fe04_c000..0x7f15_feda_7000]);
        assert_eq!(clean(""), []);
        assert_eq!(clean("Anonymous: 0 kB\nnonsense-f r-xp"), []);
    }

    #[test]
    fn this_program_goes_on_with_less() {
        fn rss() -> usize {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').nth(1).unwrap().parse().unwrap()
        }
        let before = rss();
        assert!(let_go_of_program().unwrap() > 0);
        assert!(rss() < before);
    }
}
