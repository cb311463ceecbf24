//! `cargo xtask test`: everything, in one go, on a fresh machine too. CI runs nothing else.

pub(crate) mod apt;
mod needs;
mod steps;
mod suites;

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::table::Table;
use crate::tally::Tally;
use crate::test::steps::STEPS;
use crate::workspace::Workspace;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only what a change needs before it is shown to others: format, clippy, tidy and the tests of this machine
    #[arg(long)]
    quick: bool,
}

/// One part of the run.
struct Step {
    name: &'static str,
    /// Part of `--quick`.
    quick: bool,
    /// Programs of [`needs`] without which it does not even begin.
    needs: &'static [&'static str],
    /// Those without which some of its tests fail, and say so themselves.
    wants: &'static [&'static str],
    run: Run,
}

type Run = fn(&Workspace, &mut Tally) -> Result<()>;

impl Step {
    const fn new(name: &'static str, run: Run) -> Self {
        Self { name, quick: false, needs: &[], wants: &[], run }
    }

    fn run(&self, workspace: &Workspace, lacks: &[needs::Lack], tally: &mut Tally) -> Verdict {
        let lacking = |programs: &[&str]| lacks.iter().find(|lack| programs.contains(&lack.program));
        if let Some(lack) = lacking(self.needs) {
            let why = format!("lacks {lack}");
            return if in_ci() { Verdict::Failed(why) } else { Verdict::NotRun(why) };
        }
        match ((self.run)(workspace, tally), lacking(self.wants)) {
            (Err(error), _) => Verdict::Failed(error.to_string()),
            (Ok(()), Some(lack)) if in_ci() => Verdict::Failed(format!("lacks {lack}")),
            (Ok(()), _) => Verdict::Passed,
        }
    }
}

struct Outcome {
    name: &'static str,
    verdict: Verdict,
    tally: Tally,
    took: Duration,
}

enum Verdict {
    Passed,
    Failed(String),
    /// Only outside of CI; there a machine that lacks something fails.
    NotRun(String),
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let steps: Vec<&Step> = STEPS.iter().filter(|step| step.quick || !args.quick).collect();
    let wanted: Vec<&str> =
        steps.iter().flat_map(|step| step.needs.iter().chain(step.wants)).copied().collect();
    let lacks = needs::bring(workspace, &wanted);
    for lack in &lacks {
        println!("this machine lacks {lack}");
    }
    let outcomes: Vec<Outcome> = steps.iter().map(|step| run_step(workspace, step, &lacks)).collect();
    let failed = print_summary(&outcomes);
    if failed { Err(Error::Summed) } else { Ok(()) }
}

fn run_step(workspace: &Workspace, step: &Step, lacks: &[needs::Lack]) -> Outcome {
    println!("\n=== {}", step.name);
    let begun = Instant::now();
    let mut tally = Tally::default();
    let verdict = step.run(workspace, lacks, &mut tally);
    let took = begun.elapsed();
    match &verdict {
        Verdict::Passed => println!("=== {} passed in {}", step.name, show(took)),
        Verdict::Failed(why) => println!("=== {} FAILED after {}: {why}", step.name, show(took)),
        Verdict::NotRun(why) => println!("=== {} not run: {why}", step.name),
    }
    Outcome { name: step.name, verdict, tally, took }
}

/// The table and the last line; tells whether anything failed.
fn print_summary(outcomes: &[Outcome]) -> bool {
    let mut table = Table::new(&["step", "took", "passed", "failed", ""]);
    for Outcome { name, verdict, tally, took } in outcomes {
        let verdict = match verdict {
            Verdict::Passed => "ok".to_owned(),
            Verdict::Failed(why) => format!("FAILED: {}", why.lines().next().unwrap_or_default()),
            Verdict::NotRun(why) => format!("not run: {why}"),
        };
        let count = |number: u64| if tally.ran() == 0 { String::new() } else { number.to_string() };
        table.row(vec![(*name).to_owned(), show(*took), count(tally.passed), count(tally.failed), verdict]);
    }
    println!("\n{table}\n{}", total(outcomes));
    outcomes.iter().any(|outcome| matches!(outcome.verdict, Verdict::Failed(_)))
}

/// All tests. A step that failed without a failed test counts as one, so that the last line never looks better than
/// the run was.
fn total(outcomes: &[Outcome]) -> Tally {
    let mut total = Tally::default();
    for outcome in outcomes {
        total += outcome.tally;
        if matches!(outcome.verdict, Verdict::Failed(_)) && outcome.tally.failed == 0 {
            total.failed += 1;
        }
    }
    total
}

fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false" && value != "0")
}

fn show(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(verdict: Verdict, passed: u64, failed: u64) -> Outcome {
        Outcome { name: "a", verdict, tally: Tally { passed, failed }, took: Duration::ZERO }
    }

    #[test]
    fn the_total_counts_a_failed_step_without_failed_tests() {
        let failed = || Verdict::Failed("why".into());
        let outcomes = [outcome(Verdict::Passed, 5, 0), outcome(failed(), 3, 2), outcome(failed(), 0, 0)];
        assert_eq!(total(&outcomes).to_string(), "8 passed, 3 failed");
        assert_eq!(total(&[outcome(Verdict::NotRun("lacks x".into()), 0, 0)]), Tally::default());
    }

    #[test]
    fn a_step_that_lacks_something_does_not_begin() {
        let step = Step { needs: &["qemu-system-x86_64"], ..Step::new("a", |_, _| panic!("it began")) };
        let lacks = [needs::Lack { program: "qemu-system-x86_64", why: "no apt".into() }];
        let workspace = Workspace { root: "/".into(), target: "/".into(), packages: Vec::new() };
        assert!(!matches!(run_step(&workspace, &step, &lacks).verdict, Verdict::Passed));
    }

    #[test]
    fn a_step_that_wants_something_runs_without_it() {
        let count = |_: &Workspace, tally: &mut Tally| {
            tally.passed += 1;
            Ok(())
        };
        let step = Step { wants: &["node"], ..Step::new("a", count) };
        let lacks = [needs::Lack { program: "node", why: "no apt".into() }];
        let workspace = Workspace { root: "/".into(), target: "/".into(), packages: Vec::new() };
        assert_eq!(run_step(&workspace, &step, &lacks).tally, Tally { passed: 1, failed: 0 });
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(
            [0, 59, 61, 600].map(|seconds| show(Duration::from_secs(seconds))),
            ["0 s", "59 s", "1 min 01 s", "10 min 00 s"]
        );
    }
}
