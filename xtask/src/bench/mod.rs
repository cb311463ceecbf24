//! `cargo xtask bench`: measures what `SPECIFICATION.md` promises, on this machine, with the binary as it is released.
//!
//! A folder per bench and a file per part. A part runs the binary as a user would and hands raw samples back; summing
//! up, judging against the promise, printing and writing JSON happen here, the same way for all.

mod figure;
mod front;
mod guard;
mod stats;
mod training;
mod vault;

pub(crate) use training::train;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use crate::bench::figure::Figure;
use crate::error::{Error, Result};
use crate::guided;
use crate::shell;
use crate::table::Table;
use crate::workspace::Workspace;

/// For a bench that runs in a process of its own.
const WHOLE_LIMIT: Duration = Duration::from_hours(4);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    bench: Bench,
    /// Only these parts of it
    parts: Vec<String>,
    /// How often each is measured
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Measure this binary instead of building one
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Only this front, and these; otherwise all that the part compares (front)
    #[arg(long = "only", value_name = "FRONT")]
    only: Vec<front::Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// One guard and its services: start, spike, restart, footprint, logs, simulation
    Guard,
    /// The front: loss (requests lost in recycles, kills, hangs), speed (beside nginx and HAProxy), own (what is
    /// ours, beside bare hyper), scale (10,000 connections, idle and held)
    Front,
    /// The vault beside litestream: loss (after kills), cost (to the application and the machine), burst (a writer without
    /// a pause), restore (1 GiB), restores (200, under a writer)
    Vault,
}

/// What a part is given.
struct Setting<'a> {
    workspace: &'a Workspace,
    /// The binary as it is released.
    plimsoll: PathBuf,
    runs: u32,
    /// Which fronts; empty: those that the part compares.
    only: Vec<front::Kind>,
}

/// One thing that is measured. Its name is its file's, and what `bench:BENCH::NAME` in the specification means.
struct Part {
    name: &'static str,
    run: fn(&Setting<'_>) -> Result<Vec<Figure>>,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let (bench, parts) = match args.bench {
        Bench::Guard => ("guard", guard::PARTS),
        Bench::Front => ("front", front::PARTS),
        Bench::Vault => ("vault", vault::PARTS),
    };
    let chosen = choose(parts, &args.parts)?;
    if args.bench == Bench::Front && cfg!(debug_assertions) {
        return again_optimised(workspace);
    }
    let plimsoll = match &args.binary {
        Some(path) => path.canonicalize().map_err(Error::file("find", path))?,
        None => guided::build(workspace)?,
    };
    let setting = Setting { workspace, plimsoll, runs: args.runs, only: args.only.clone() };
    let (mut figures, mut broken) = (Vec::new(), Vec::new());
    for part in chosen {
        println!("measuring {} … (load {})", part.name, load());
        match (part.run)(&setting) {
            Ok(measured) => figures.extend(measured.into_iter().map(|figure| (part.name, figure))),
            // What the others took minutes to measure is not thrown away for it.
            Err(error) => broken.push(format!("{} could not be measured: {error}", part.name)),
        }
    }
    println!("\n{}load {}", table(&figures), load());
    write_json(workspace, bench, &figures)?;
    let missed = figures.iter().filter(|(_, figure)| !figure.is_kept());
    broken.extend(missed.map(|(_, figure)| format!("not kept: {}", figure.what)));
    if broken.is_empty() {
        return Ok(());
    }
    Err(Error::Check(broken.join("\n  ")))
}

/// A generator of load that is not optimised would measure itself.
fn again_optimised(workspace: &Workspace) -> Result<()> {
    let mut command = workspace.cargo(&["run", "--quiet", "--release", "--package", "xtask", "--"]);
    match shell::run(command.args(std::env::args_os().skip(1)), WHOLE_LIMIT) {
        // It has said what.
        Err(Error::Failed { .. }) => Err(Error::Summed),
        other => other,
    }
}

fn choose<'a>(parts: &'a [Part], names: &[String]) -> Result<Vec<&'a Part>> {
    if let Some(unknown) = names.iter().find(|name| !parts.iter().any(|part| part.name == **name)) {
        let known: Vec<&str> = parts.iter().map(|part| part.name).collect();
        return Err(Error::Check(format!("no part is named {unknown}; there are {}", known.join(", "))));
    }
    Ok(parts.iter().filter(|part| names.is_empty() || names.iter().any(|name| name == part.name)).collect())
}

fn table(figures: &[(&str, Figure)]) -> Table {
    let compared = figures.iter().any(|(_, figure)| figure.is_compared());
    let mut header = vec!["part", "what", "runs", "median", "p99", "max", "promised"];
    if compared {
        header.insert(header.len() - 1, "ratio");
    }
    let mut table = Table::new(&header);
    for (part, figure) in figures {
        let mut row = vec![(*part).to_owned()];
        row.extend(figure.cells());
        if compared {
            row.insert(row.len() - 1, figure.ratio_cell());
        }
        table.row(row);
    }
    table
}

fn write_json(workspace: &Workspace, bench: &str, figures: &[(&str, Figure)]) -> Result<()> {
    let folder = workspace.target.join("bench");
    fs::create_dir_all(&folder).map_err(Error::file("make", &folder))?;
    let path = folder.join(format!("{bench}.json"));
    let figures: Vec<_> = figures.iter().map(|(part, figure)| figure.json(part)).collect();
    let json = serde_json::json!({ "bench": bench, "machine": machine(), "figures": figures });
    fs::write(&path, format!("{json:#}\n")).map_err(Error::file("write", &path))?;
    println!("written to {}", path.display());
    Ok(())
}

/// Without this a figure means little.
fn machine() -> serde_json::Value {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    serde_json::json!({ "cores": cores, "kernel": kernel.trim(), "load": load() })
}

/// Over the last 1, 5 and 15 minutes; what we measure counts too.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_chosen_by_name_and_an_unknown_one_is_refused() {
        let part = |name| Part { name, run: |_| Ok(Vec::new()) };
        let parts = [part("spike"), part("footprint")];
        let names = |chosen: Vec<&Part>| chosen.iter().map(|part| part.name).collect::<Vec<_>>();
        assert_eq!(names(choose(&parts, &[]).unwrap()), ["spike", "footprint"]);
        assert_eq!(names(choose(&parts, &["footprint".into()]).unwrap()), ["footprint"]);
        let error = choose(&parts, &["speed".into()]).map(names).unwrap_err().to_string();
        assert_eq!(error, "no part is named speed; there are spike, footprint");
    }
}
