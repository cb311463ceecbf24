//! Many runs on all processors, and how many the environment asks for.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the variable says, where it says a number.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Calls `find` for each number, as many at a time as there are processors; what it found, by number.
pub(crate) fn search<T: Send>(
    numbers: Range<u64>,
    find: impl Fn(u64) -> Option<T> + Sync,
) -> BTreeMap<u64, T> {
    let next = AtomicU64::new(numbers.start);
    let found = Mutex::new(BTreeMap::new());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        return;
                    }
                    if let Some(one) = find(number) {
                        found.lock().expect("no thread panics while it holds this").insert(number, one);
                    }
                }
            });
        }
    });
    found.into_inner().expect("no thread panics while it holds this")
}
