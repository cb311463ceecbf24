//! `cargo xtask`: everything around the code.
//!
//! A file or folder per verb. Nothing here knows Plimsoll's own packages from the inside: they are built, run and read
//! as text, so that a broken workspace can still be tested and tidied.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "talking on the terminal is what this program is for"
)]

mod bench;
mod dist;
mod error;
mod fuzz;
mod guided;
mod shell;
mod table;
mod tally;
mod test;
mod tidy;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::{Error, Result};
use crate::workspace::Workspace;

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Tests, tidiness, the VM, releases and benches"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run every check there is, installing by apt what is missing; ends in `N passed, M failed`
    Test(test::Args),
    /// Check what no compiler checks: package edges, lengths, words, promised numbers, links
    Tidy,
    /// Run the kernel suites under cgroup v2 in a small virtual machine
    Vm(vm::Args),
    /// Build the static binary, trained under load, and pack it for release
    Dist(dist::Args),
    /// Give every parser bytes that it was not meant for; what is found stays in target/fuzz
    Fuzz(fuzz::Args),
    /// Measure the promises of SPECIFICATION.md
    Bench(bench::Args),
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Summed) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    let workspace = Workspace::find()?;
    match verb {
        Verb::Test(args) => test::run(&workspace, &args),
        Verb::Tidy => tidy::run(&workspace),
        Verb::Vm(args) => vm::run(&workspace, &args).map(drop),
        Verb::Dist(args) => dist::run(&workspace, &args),
        Verb::Fuzz(args) => fuzz::run(&workspace, &args),
        Verb::Bench(args) => bench::run(&workspace, &args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
