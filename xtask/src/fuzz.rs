//! `cargo xtask fuzz`: libFuzzer on stable Rust, over every target of `plimsoll-fuzz` or those that are named.
//!
//! Only our own packages are built with its instrumentation; what they depend on comes from the ordinary build.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::shell;
use crate::workspace::Workspace;

const PACKAGE: &str = "crates/fuzz";
const BUILD_LIMIT: Duration = Duration::from_mins(20);
/// One input may take this long; nothing that we read is worth a tenth of it.
const INPUT_SECONDS_MAX: u64 = 10;
/// Of the whole process, above what a target may take for one input.
const MEMORY_MIB_MAX: u64 = 1024;
const INPUT_BYTES_MAX: u64 = 8192;
/// Starting, reading the corpus and saying what was found, on top of the time to fuzz.
const AROUND: Duration = Duration::from_mins(2);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Targets; all of them where none is named
    targets: Vec<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where chance begins; 0: somewhere else each time
    #[arg(long, default_value_t = 0)]
    seed: u32,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let known = targets(workspace)?;
    if let Some(unknown) = args.targets.iter().find(|name| !known.contains(name)) {
        return Err(Error::Check(format!("no target {unknown}; there are {}", known.join(", "))));
    }
    let wanted = if args.targets.is_empty() { &known } else { &args.targets };
    let binary = build(workspace)?;
    let failed: Vec<&str> =
        wanted.iter().filter(|name| !fuzz(workspace, &binary, name, args)).map(String::as_str).collect();
    if failed.is_empty() {
        println!("{} targets, {} s each, nothing found", wanted.len(), args.seconds);
        return Ok(());
    }
    Err(Error::Check(format!("the fuzzer found something in {}", failed.join(", "))))
}

/// Each has a folder of inputs to begin with; the package's own test holds the two lists together.
fn targets(workspace: &Workspace) -> Result<Vec<String>> {
    let corpus = workspace.root.join(PACKAGE).join("corpus");
    let entries = fs::read_dir(&corpus).map_err(Error::file("read", &corpus))?;
    let mut names: Vec<String> =
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
    names.sort();
    Ok(names)
}

fn build(workspace: &Workspace) -> Result<PathBuf> {
    let args = ["build", "--package", "plimsoll-fuzz", "--bin", "fuzz", "--features", "libfuzzer"];
    let mut command = workspace.cargo(&args);
    let wrapper = workspace.root.join(PACKAGE).join("rustc-with-coverage.sh");
    command.env("RUSTC_WORKSPACE_WRAPPER", wrapper).env("CARGO_INCREMENTAL", "0");
    shell::run(&mut command, BUILD_LIMIT)?;
    Ok(workspace.target.join("debug/fuzz"))
}

/// Whether it found nothing. What it found is kept, and its path told by libFuzzer.
fn fuzz(workspace: &Workspace, binary: &Path, name: &str, args: &Args) -> bool {
    let Args { seconds, seed, .. } = args;
    println!("--- {name}");
    let begin = workspace.root.join(PACKAGE).join("corpus").join(name);
    let grown = workspace.target.join("fuzz").join(name);
    if let Err(error) = fs::create_dir_all(&grown) {
        println!("{}: {error}", grown.display());
        return false;
    }
    let mut command = Command::new(binary);
    // The first folder takes what is new; the second is only read.
    command
        .args([&grown, &begin])
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-seed={seed}"))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg(format!("-artifact_prefix={}-found-", grown.display()))
        .args(["-verbosity=0", "-print_final_stats=1", "-print_funcs=0"])
        .env("PLIMSOLL_FUZZ_TARGET", name);
    match shell::run(&mut command, Duration::from_secs(*seconds) + AROUND) {
        Ok(()) => true,
        Err(error) => {
            println!("{error}");
            false
        }
    }
}

/// A second or two for each target, so that a parser that was changed meets bytes it was not meant for. The same bytes each
/// time: what fails is to be the change, and not the day.
pub(crate) fn briefly(workspace: &Workspace) -> Result<()> {
    const SECONDS_ALL: u64 = 26;
    let seconds = (SECONDS_ALL / targets(workspace)?.len().max(1) as u64).max(1);
    run(workspace, &Args { targets: Vec::new(), seconds, seed: 1 })
}
