//! The command line: every verb with its flags, its help, and the exit codes.

mod vault;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Termination};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::config::{Check, CommandOptions};

pub use vault::{OneVault, VaultArgs, VaultPrune, VaultRestore, VaultVerb, VaultVerify};

/// What a command's end means. Documented in `--help`; scripts rely on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, or healthy.
    Done,
    /// The answer is no: unhealthy, a stray found, a layer that did not do its work.
    No,
    /// Wrong usage or a wrong configuration.
    Usage,
    /// Not permitted.
    NotPermitted,
    /// The guard cannot be reached.
    Unreachable,
    /// Our own fault.
    Internal,
}

impl Exit {
    pub const ALL: [Self; 6] =
        [Self::Done, Self::No, Self::Usage, Self::NotPermitted, Self::Unreachable, Self::Internal];

    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::No => 1,
            Self::Usage => 2,
            Self::NotPermitted => 3,
            Self::Unreachable => 4,
            Self::Internal => 70,
        }
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

const EXIT_CODES: &str = "\
Exit codes:
   0  done, or healthy
   1  the answer is no: unhealthy, a stray found, a check that failed
   2  wrong usage, or a wrong configuration
   3  not permitted
   4  the guard cannot be reached (is `plimsoll run` up? same --state or --socket?)
  70  our own fault: please report it

First steps:
  plimsoll init                    write a plimsoll.toml for the project in this folder
  plimsoll check                   is it right, and what will enforce each layer here?
  plimsoll run                     guard it
  plimsoll status                  how is it doing?
  plimsoll incidents               what happened last night?";

/// Keeps a service up while it leaks, spikes, hangs or dies, and tells you why.
#[derive(Debug, Parser)]
#[command(name = "plimsoll", version, max_term_width = 100, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Shown under its own heading, below what the verb itself takes.
const EVERYWHERE: &str = "Options of every command";

/// Flags that every verb takes.
#[derive(Clone, Debug, Default, Args)]
pub struct Global {
    /// The configuration [default: ./plimsoll.toml]
    #[arg(long, global = true, value_name = "FILE", help_heading = EVERYWHERE)]
    pub config: Option<PathBuf>,
    /// Where ledger and logs are kept [default: /var/lib/plimsoll, or your own state folder]
    #[arg(long, global = true, value_name = "DIR", help_heading = EVERYWHERE)]
    pub state: Option<PathBuf>,
    /// The guard's control socket [default: found from --state or the configuration]
    #[arg(long, global = true, value_name = "PATH", help_heading = EVERYWHERE)]
    pub socket: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Look at a project and write a plimsoll.toml for it
    Init(Init),
    /// Check the configuration, and show what enforces each layer on this machine
    Check(CheckArgs),
    /// Guard the services of the configuration, or one command
    Run(Run),
    /// Show how every service is doing (exit 1 when one is not well)
    Status(Listing),
    /// Show what happened, newest last
    Events(Events),
    /// List incidents, or show one with its evidence
    Incidents(Incidents),
    /// Show what a service printed
    Logs(Logs),
    /// Replace a service's instances by its own handover
    Recycle(OneService),
    /// Stop a service's instances and start them again, at once
    Restart(OneService),
    /// Stop a service and keep it down until `start`
    Stop(OneService),
    /// Start a service that was stopped
    Start(OneService),
    /// Read the configuration again; what did not change keeps running
    Reload(Reload),
    /// Replace the running guard by another version; no service is restarted
    Upgrade(Upgrade),
    /// Find strays: processes that no service and no container owns
    Sweep(Sweep),
    /// Write the configuration in the words of another tool
    Export(Export),
    /// Back up SQLite databases, and prove it by restoring them
    Vault(VaultArgs),
    /// Watch every layer do its work on a sample service (about forty seconds, needs nothing installed)
    Demo(Demo),
    /// Print a completion script for your shell
    Completions(Completions),
    /// The demo's sample service
    #[command(hide = true)]
    SampleService(crate::sample::SampleArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Exit 1: nothing to guard was found, and nothing was written.")]
pub struct Init {
    /// The project's folder
    #[arg(default_value = ".", value_name = "DIR")]
    pub folder: PathBuf,
    /// Overwrite a plimsoll.toml that is there
    #[arg(long)]
    pub force: bool,
    /// Print the configuration instead of writing it
    #[arg(long)]
    pub stdout: bool,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration [default: --config, or ./plimsoll.toml]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Machine-readable
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
#[command(
    override_usage = "plimsoll run [FILE] [--log text|json]\n       plimsoll run [OPTIONS] -- COMMAND…",
    after_help = "SIGTERM drains and stops every service; SIGHUP reloads the configuration.\n\n\
                  With -- COMMAND one command is guarded with the defaults and needs no file. It is told its port by \
                  the variable PORT, or by {port} in its arguments; --address is for one that cannot be told."
)]
pub struct Run {
    /// The configuration [default: --config, or ./plimsoll.toml]
    #[arg(value_name = "FILE", conflicts_with = "command")]
    pub file: Option<PathBuf>,
    /// How each event is printed: a line for people, or a JSON object per line
    #[arg(long, value_enum, default_value_t = LogStyle::Text, value_name = "STYLE")]
    pub log: LogStyle,
    /// Without init: the guard is its own parent
    #[arg(long, hide = true)]
    pub alone: bool,
    /// With a command: the address it listens on
    #[arg(long, value_name = "IP:PORT", requires = "command")]
    pub address: Option<SocketAddr>,
    /// With a command: its health check: tcp, none, or a path such as /health
    #[arg(long, value_name = "CHECK", requires = "command", value_parser = parse_health)]
    pub health: Option<Check>,
    /// One command to guard with the defaults
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

impl Run {
    pub fn options(&self) -> CommandOptions {
        CommandOptions { address: self.address, check: self.health.clone() }
    }
}

fn parse_health(text: &str) -> Result<Check, String> {
    match text {
        "tcp" => Ok(Check::Tcp),
        "none" => Ok(Check::Nothing),
        path if path.starts_with('/') && path.chars().all(|letter| letter.is_ascii_graphic()) => {
            Ok(Check::Http(path.to_owned()))
        }
        _ => Err("write tcp, none, or a path such as /health".to_owned()),
    }
}

/// How `run` prints events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogStyle {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub struct Listing {
    /// Machine-readable
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Events {
    /// Only this service
    #[arg(value_name = "SERVICE")]
    pub service: Option<String>,
    /// Go on showing what happens
    #[arg(short, long)]
    pub follow: bool,
    /// From here on: 10m, 2h, or 2026-11-23T20:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = parse_since)]
    pub since: Option<Since>,
    /// At most so many, the newest
    #[arg(short = 'n', long, default_value_t = 100, value_name = "N")]
    pub lines: usize,
    /// Machine-readable: one JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// Where a listing begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// So long before now.
    Ago(std::time::Duration),
    At(jiff::Timestamp),
}

impl Since {
    pub fn timestamp(self) -> jiff::Timestamp {
        match self {
            Self::Ago(span) => {
                jiff::Timestamp::now().checked_sub(span).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
            }
            Self::At(time) => time,
        }
    }
}

fn parse_since(text: &str) -> Result<Since, String> {
    let ago = crate::config::parse_span(text).ok().map(Since::Ago);
    let at = || text.parse().ok().map(Since::At);
    ago.or_else(at).ok_or_else(|| {
        "write how long ago, such as 10m or 2h, or a time such as 2026-11-23T20:00:00Z".to_owned()
    })
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Incidents {
    #[command(subcommand)]
    pub verb: Option<IncidentsVerb>,
    #[command(flatten)]
    pub list: IncidentsList,
}

#[derive(Debug, Subcommand)]
pub enum IncidentsVerb {
    /// List incidents, newest first (the same as no word at all)
    List(IncidentsList),
    /// Show one like a short post-mortem: what, when, which layer, how long dark, what the evidence says
    Show(IncidentsShow),
}

#[derive(Debug, Args)]
pub struct IncidentsList {
    /// Only this service
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,
    /// At most so many, the newest
    #[arg(short = 'n', long, default_value_t = 20, value_name = "N")]
    pub lines: usize,
    /// Machine-readable
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct IncidentsShow {
    /// The number that the list shows
    #[arg(value_name = "NUMBER")]
    pub id: u64,
    /// Machine-readable, with all of the evidence
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Logs {
    /// Its name in the configuration
    #[arg(value_name = "SERVICE")]
    pub service: String,
    /// Go on showing what it prints
    #[arg(short, long)]
    pub follow: bool,
    /// From here on: 10m, 2h, or 2026-11-23T20:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = parse_since)]
    pub since: Option<Since>,
    /// At most so many lines, the newest [default: 200, or all with --since]
    #[arg(short = 'n', long, value_name = "N")]
    pub lines: Option<usize>,
    /// Machine-readable: one JSON object per line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct OneService {
    /// Its name in the configuration
    #[arg(value_name = "SERVICE")]
    pub service: String,
    /// Machine-readable
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "A configuration that is wrong is refused whole; the guard goes on with the one it has."
)]
pub struct Reload {
    /// Machine-readable
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The new version takes over the listening sockets and every instance; the old one finishes its requests \
                  in flight and leaves. When the new one does not get to guarding in time, the old one carries on."
)]
pub struct Upgrade {
    /// The new version [default: this program itself]
    #[arg(value_name = "BINARY")]
    pub binary: Option<PathBuf>,
    /// Machine-readable
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Without flags the [[sweep]] tables of the configuration apply. Never touched: plimsoll itself, PID 1, \
                  guarded instances, and anything in a container. Exit 1 when strays were found.\n\n\
                  Example:\n  plimsoll sweep --exe /usr/bin/node --args dist/main --over 300MiB"
)]
pub struct Sweep {
    /// Stop what is found: TERM, then KILL (without this it is only reported)
    #[arg(long)]
    pub act: bool,
    /// Only processes of exactly this executable
    #[arg(long, value_name = "PATH", value_parser = parse_exe)]
    pub exe: Option<PathBuf>,
    /// Only processes with these arguments
    #[arg(long, value_name = "TEXT", requires = "exe")]
    pub args: Option<String>,
    /// Larger than this, such as 300MiB
    #[arg(long, value_name = "SIZE", requires = "exe", value_parser = crate::config::parse_size)]
    pub over: Option<plimsoll_core::units::Bytes>,
    /// Without a parent for so long, such as 10m
    #[arg(long, value_name = "TIME", requires = "exe", value_parser = crate::config::parse_span)]
    pub orphan_after: Option<std::time::Duration>,
    /// Machine-readable
    #[arg(long)]
    pub json: bool,
}

fn parse_exe(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    Err("write the whole path, such as /usr/bin/node; a name alone would match too much".to_owned())
}

#[derive(Debug, Args)]
pub struct Export {
    #[command(subcommand)]
    pub verb: ExportVerb,
}

#[derive(Debug, Subcommand)]
pub enum ExportVerb {
    /// A systemd unit: readiness, watchdog, delegated control groups, and a sandbox that the layers work in
    Systemd(ExportSystemd),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  plimsoll export systemd > /etc/systemd/system/plimsoll.service\n  \
                        plimsoll export systemd --socket-unit --output /etc/systemd/system")]
pub struct ExportSystemd {
    /// The configuration [default: --config, or ./plimsoll.toml]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// For `systemctl --user`
    #[arg(long)]
    pub user: bool,
    /// Also a socket unit: systemd holds the front's sockets, whatever happens to us
    #[arg(long)]
    pub socket_unit: bool,
    /// Write the files into this folder instead of printing them
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Exit 1 when a layer did not do its work.")]
pub struct Demo {
    /// Plain lines instead of the live view, also on a terminal
    #[arg(long)]
    pub plain: bool,
    /// Only the table at the end, machine-readable
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  plimsoll completions bash > /etc/bash_completion.d/plimsoll\n  \
                        plimsoll completions zsh > \"${fpath[1]}/_plimsoll\"\n  \
                        plimsoll completions fish > ~/.config/fish/completions/plimsoll.fish")]
pub struct Completions {
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_and_a_file_exclude_each_other() {
        let Ok(Cli { verb: Verb::Run(run), .. }) = parsed("plimsoll run --health none -- node server.js --x")
        else {
            panic!("it is fine")
        };
        assert_eq!(run.command, ["node", "server.js", "--x"]);
        assert_eq!(run.options(), CommandOptions { address: None, check: Some(Check::Nothing) });
        assert!(parsed("plimsoll run my.toml -- node").is_err());
        assert!(parsed("plimsoll run --health none").is_err());
        assert!(parsed("plimsoll run --health health -- node").is_err());
    }

    #[test]
    fn incidents_lists_without_a_word_and_shows_with_one() {
        let Ok(Cli { verb: Verb::Incidents(list), .. }) = parsed("plimsoll incidents --json -n 5") else {
            panic!("it is fine")
        };
        assert!(list.verb.is_none() && list.list.json && list.list.lines == 5);
        let Ok(Cli { verb: Verb::Incidents(show), .. }) = parsed("plimsoll incidents show 7 --json") else {
            panic!("it is fine")
        };
        assert!(matches!(show.verb, Some(IncidentsVerb::Show(IncidentsShow { id: 7, json: true }))));
    }

    #[test]
    fn global_flags_stand_before_and_behind_the_verb() {
        for line in ["plimsoll --state /tmp/s status", "plimsoll status --state /tmp/s"] {
            assert_eq!(parsed(line).expect(line).global.state.as_deref(), Some(Path::new("/tmp/s")));
        }
    }

    #[test]
    fn a_listing_begins_some_time_ago_or_at_a_time() {
        assert_eq!(parse_since("10m"), Ok(Since::Ago(std::time::Duration::from_mins(10))));
        assert!(matches!(parse_since("2026-11-23T20:00:00Z"), Ok(Since::At(_))));
        assert!(parse_since("yesterday").is_err());
    }

    #[test]
    fn a_sweep_by_hand_needs_a_whole_path() {
        assert!(parsed("plimsoll sweep --exe /usr/bin/node --over 300MiB --orphan-after 10m").is_ok());
        assert!(parsed("plimsoll sweep --exe node").is_err());
        let error = parsed("plimsoll sweep --exe /usr/bin/node --over 300").expect_err("no unit").to_string();
        assert!(error.contains("300MiB"), "{error}");
    }

    #[test]
    fn every_exit_code_is_documented() {
        for exit in Exit::ALL {
            let line = format!("{:>4}  ", exit.code());
            assert!(EXIT_CODES.lines().any(|text| text.starts_with(&line)), "{exit:?}");
        }
    }
}
