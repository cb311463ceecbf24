//! The steps, in the order in which they tell most for the least time.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::shell;
use crate::tally::Tally;
use crate::test::Step;
use crate::test::suites::{self, Selection, WHOLE};
use crate::workspace::{MUSL, Workspace};
use crate::{dist, fuzz, tidy, vm};

/// What the examples and the suites start for real: runtimes, a certificate authority, systemd's own check of units, and
/// a store that speaks S3.
const RUNTIMES: &[&str] = &["node", "python3", "java", "pebble", "systemd-analyze", "pip", "moto"];

/// Every step ends: the longest on two slow cores takes a third of this.
const LIMIT: Duration = Duration::from_mins(20);

/// What the simulation explores in a step of its own; among the tests it explores less.
const SEEDS: &str = "10000";
const SEEDS_VARIABLE: &str = "PLIMSOLL_SEEDS";

/// What the VM and the static binary cannot do without.
const STATIC: &[&str] = &[MUSL, "musl-gcc", "make"];
const MACHINE: &[&str] = &[MUSL, "musl-gcc", "make", "cpio", "qemu-system-x86_64", "systemd-analyze"];

pub(super) const STEPS: [Step; 10] = [
    Step { quick: true, needs: &["rustfmt"], ..Step::new("format", format) },
    Step { quick: true, needs: &["clippy"], ..Step::new("clippy", clippy) },
    Step { quick: true, ..Step::new("tidy", |workspace, _| tidy::run(workspace)) },
    Step { quick: true, wants: RUNTIMES, ..Step::new("tests", tests) },
    Step::new("documentation", documentation),
    Step::new("dependencies", dependencies),
    Step::new("simulation", simulation),
    Step { needs: &["c++"], ..Step::new("fuzzing", |workspace, _| fuzz::briefly(workspace)) },
    Step { needs: MACHINE, ..Step::new("kernel suites in the VM", machine) },
    Step { needs: STATIC, ..Step::new("static binary in an empty root", empty_root) },
];

fn format(workspace: &Workspace, _: &mut Tally) -> Result<()> {
    shell::run(&mut workspace.cargo(&["fmt", "--all", "--check"]), LIMIT)
}

fn clippy(workspace: &Workspace, _: &mut Tally) -> Result<()> {
    let whole = ["--workspace", "--exclude", "plimsoll-fuzz", "--all-targets", "--all-features"];
    // Its one feature brings libFuzzer, which is built where it is run and nowhere else.
    let fuzz = ["--package", "plimsoll-fuzz", "--all-targets"];
    for packages in [whole.as_slice(), &fuzz] {
        let args = [&["clippy"], packages, &["--", "-D", "warnings"]].concat();
        shell::run(&mut workspace.cargo(&args), LIMIT)?;
    }
    Ok(())
}

fn tests(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let suites = suites::run(workspace, &Selection { args: &[WHOLE], env: &[] }, LIMIT, tally)?;
    suites::all_ran(&suites, &workspace.packages)
}

/// With private items, since it is written for those who work on them.
fn documentation(workspace: &Workspace, _: &mut Tally) -> Result<()> {
    let mut command = workspace.cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"]);
    shell::run(command.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links"), LIMIT)
}

fn dependencies(workspace: &Workspace, _: &mut Tally) -> Result<()> {
    if !shell::has("cargo-deny") {
        return tidy::check_licences(workspace);
    }
    // Advisories need the network and change by themselves; they are no part of what a change did.
    shell::run(&mut workspace.cargo(&["deny", "check", "bans", "licenses", "sources"]), LIMIT)
}

/// The one suite whose worth is its size. Built as for the tests, where decisions are optimized and overflow is found.
fn simulation(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let args = ["--package", "plimsoll-sim", "--test", "seeds"];
    let selection = Selection { args: &args, env: &[(SEEDS_VARIABLE, SEEDS)] };
    let ran = suites::run(workspace, &selection, LIMIT, tally)?;
    if ran.iter().all(|suite| suite.tally.ran() == 0) {
        return Err(Error::Check("the simulation ran nothing".into()));
    }
    Ok(())
}

fn machine(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    match vm::run(workspace, &vm::Args::default()) {
        Ok(ran) => {
            *tally += ran;
            Ok(())
        }
        Err(error) => {
            if let Error::Vm { tally: ran, .. } = &error {
                *tally += *ran;
            }
            Err(error)
        }
    }
}

/// The one that the VM ran. How it is optimised for a release changes nothing here, takes ten minutes, and is each
/// night's.
fn empty_root(workspace: &Workspace, _: &mut Tally) -> Result<()> {
    let binary = vm::build_plimsoll(workspace)?;
    dist::check_static(&binary)?;
    dist::smoke(workspace, &binary)
}
