//! The memory limit that somebody else has put around us: a container's, a unit's.

use std::path::Path;

use super::mounts::Places;
use crate::{Roots, text};

/// More than any machine has: what v1 writes for "none".
const NONE_FROM: u64 = 1 << 60;

/// The lowest limit of our own group and of all above it that can be seen, in bytes. `None` where there is none, or where
/// nothing can be read.
pub fn room(roots: &Roots) -> Option<u64> {
    let places = Places::read(roots).ok()?;
    let v2 = places.v2().and_then(|place| lowest_v2(&place.own, &place.top));
    let v1 = places.v1("memory").and_then(|place| lowest_v1(&place.own));
    v2.into_iter().chain(v1).min()
}

fn lowest_v2(own: &Path, top: &Path) -> Option<u64> {
    let above = own.ancestors().take_while(|folder| folder.starts_with(top));
    above.filter_map(|folder| text::read(&folder.join("memory.max")).ok()?.trim().parse().ok()).min()
}

/// The kernel has done the walk upwards.
fn lowest_v1(own: &Path) -> Option<u64> {
    let stat = text::read(&own.join("memory.stat")).ok()?;
    let limit = stat.lines().find_map(|line| line.strip_prefix("hierarchical_memory_limit "))?;
    limit.trim().parse().ok().filter(|limit| *limit < NONE_FROM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_lowest_limit_above_us_counts() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("slice/unit");
        fs::create_dir_all(&own).unwrap();
        assert_eq!(lowest_v2(&own, folder.path()), None);
        fs::write(own.join("memory.max"), "max\n").unwrap();
        fs::write(folder.path().join("slice/memory.max"), "268435456\n").unwrap();
        assert_eq!(lowest_v2(&own, folder.path()), Some(256 << 20));
        fs::write(own.join("memory.max"), "1048576\n").unwrap();
        assert_eq!(lowest_v2(&own, folder.path()), Some(1 << 20));
    }

    #[test]
    fn v1_says_none_with_a_number() {
        let folder = tempfile::tempdir().unwrap();
        let stat = |limit: &str| {
            fs::write(
                folder.path().join("memory.stat"),
                format!("cache 1\nhierarchical_memory_limit {limit}\n"),
            )
            .unwrap();
            lowest_v1(folder.path())
        };
        assert_eq!(stat("9223372036854771712"), None);
        assert_eq!(stat("268435456"), Some(256 << 20));
    }
}
