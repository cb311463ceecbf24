//! `plimsoll completions SHELL`: a completion script on standard output.

use std::io::{self, Write};

use clap::CommandFactory as _;

use crate::cli::{Cli, Completions};

/// Writes the script for the shell to `out`.
pub fn run(args: &Completions, out: &mut impl Write) -> io::Result<()> {
    // Made in memory first: the generator panics where writing fails, and a closed pipe is no fault of ours.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "plimsoll", &mut script);
    out.write_all(&script)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum as _;
    use clap_complete::Shell;

    #[test]
    fn every_shell_gets_a_script_that_knows_the_verbs() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            run(&Completions { shell: *shell }, &mut script).expect("memory takes everything");
            let script = String::from_utf8(script).expect("text");
            assert!(script.contains("incidents") && script.contains("recycle"), "{shell}");
        }
    }

    #[test]
    fn a_closed_pipe_is_an_error_and_no_panic() {
        let mut full: &mut [u8] = &mut [0; 8];
        assert!(run(&Completions { shell: Shell::Bash }, &mut full).is_err());
    }
}
