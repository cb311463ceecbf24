//! Every target bears its corpus, and every part of it that a torn write or a cut connection would leave.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use peak_alloc::PeakAlloc;
use plimsoll_fuzz::{TARGETS, bounded};

/// Longer ones are cut at so many places.
const CUTS_MAX: usize = 200;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

// One test and no more: the memory of two at a time could not be told apart.
#[test]
fn every_target_bears_its_corpus_whole_and_torn() {
    let named: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let kept: BTreeSet<String> = files(&corpus())
        .iter()
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    assert_eq!(named, kept, "each target has a folder in corpus/, and no other is there");
    for target in TARGETS {
        let seeds = files(&corpus().join(target.name));
        assert!(!seeds.is_empty(), "{} has no corpus", target.name);
        for seed in seeds {
            println!("{} {}", target.name, seed.display());
            let bytes = fs::read(&seed).expect("a file of the corpus");
            bounded(&HEAP, target.run, &bytes);
            for cut in (0..bytes.len()).step_by(bytes.len() / CUTS_MAX + 1) {
                bounded(&HEAP, target.run, &bytes[..cut]);
            }
        }
    }
}
