//! Memory that a target may take: a parser that believes a length it was told takes what it likes.

use peak_alloc::PeakAlloc;

/// Whatever the input: rings of rustls, pages of a runtime, a table or two.
const FIXED_BYTES: usize = 8 << 20;
/// For each byte of the input; a list of owned strings takes about this much for a byte that begins a new one.
const PER_BYTE: usize = 256;

/// Runs the target, and panics if it took more memory than this input can be worth. `heap` is the global allocator of
/// whoever runs it.
pub fn bounded(heap: &PeakAlloc, run: fn(&[u8]), bytes: &[u8]) {
    heap.reset_peak_usage();
    let before = heap.current_usage();
    run(bytes);
    let taken = heap.peak_usage().saturating_sub(before);
    let allowed = FIXED_BYTES + PER_BYTE * bytes.len();
    assert!(taken <= allowed, "{taken} bytes of memory for {} bytes of input", bytes.len());
}
