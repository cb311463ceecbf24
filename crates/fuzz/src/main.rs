//! One target under libFuzzer, which brings `main`: `PLIMSOLL_FUZZ_TARGET` says which. `cargo xtask fuzz` starts it.
#![no_main]

use std::sync::OnceLock;

use peak_alloc::PeakAlloc;
use plimsoll_fuzz::{Target, bounded, target};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

static TARGET: OnceLock<Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("PLIMSOLL_FUZZ_TARGET").unwrap_or_default();
        target(&name).unwrap_or_else(|| panic!("PLIMSOLL_FUZZ_TARGET={name:?} is no target"))
    });
    bounded(&HEAP, target.run, bytes);
});
