//! What the sample service is told on its command line.

use std::path::PathBuf;

use super::stray::Stage;

/// Arguments of the hidden verb `plimsoll sample-service`.
#[derive(Debug, Clone, clap::Args)]
pub struct SampleArgs {
    /// Loopback port to serve on; 0 lets the kernel pick one
    #[arg(long, env = "PORT", default_value_t = 3000)]
    pub(super) port: u16,

    /// SQLite file with the reports, created when missing
    #[arg(long, env = "DATABASE", value_name = "PATH", default_value = "reports.db")]
    pub(super) database: PathBuf,

    /// Artificial boot time in milliseconds, before the port is opened
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(super) boot_ms: u64,

    /// Whether SIGTERM lets requests in flight finish before the exit
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub(super) drain: bool,

    /// Part of the double fork to play instead of serving
    #[arg(long, hide = true)]
    pub(super) stray: Option<Stage>,

    /// Seconds that the stray lives
    #[arg(long, hide = true, default_value_t = 0)]
    pub(super) stray_secs: u64,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        sample: SampleArgs,
    }

    #[test]
    fn draining_is_on_until_it_is_switched_off() {
        let drains = |line: &[&str]| Line::parse_from(line).sample.drain;
        assert!(drains(&["sample-service"]));
        assert!(!drains(&["sample-service", "--drain", "false"]));
    }

    #[test]
    fn everything_can_be_given_on_the_command_line() {
        let line = ["sample-service", "--port", "4000", "--database", "/tmp/r.db", "--boot-ms", "300"];
        let args = Line::parse_from(line).sample;
        assert_eq!((args.port, args.boot_ms), (4000, 300));
        assert_eq!(args.database, PathBuf::from("/tmp/r.db"));
        assert!(args.stray.is_none());
    }
}
