//! `plimsoll run`: guard until told to end.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use plimsoll_front::{Front, FrontError};
use plimsoll_guard::control::ControlError;
use plimsoll_guard::records::EventRecord;
use plimsoll_guard::traffic::Traffic;
use plimsoll_guard::vaults::Vaults;
use plimsoll_guard::{Guard, GuardError, Hooks, Settings, tell};

use crate::carry::{self, Carrier};
use crate::cli::{Exit, Global, LogStyle, Run};
use crate::config::{Config, ConfigErrors, Host, SecretError, Warning, file_or_default};
use crate::settings::{self, SettingsError};
use crate::vaults::Keepers;

/// Lines that wait for a slow terminal; past that they are counted.
const LINES_WAITING: usize = 1024;
const STACK_BYTES: usize = 128 * 1024;
const PRINT_REST: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0}")]
    Config(ConfigErrors),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Guard(#[from] GuardError),
    #[error(transparent)]
    Front(#[from] FrontError),
    #[error("vault: identity: {0}")]
    Vault(#[from] SecretError),
}

impl RunError {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::Settings(_) | Self::Vault(_) => Exit::Usage,
            Self::Guard(error) => guard_exit(error),
            Self::Front(error) => front_exit(error),
        }
    }
}

fn guard_exit(error: &GuardError) -> Exit {
    let io_exit = |error: &io::Error| {
        if error.kind() == io::ErrorKind::PermissionDenied { Exit::NotPermitted } else { Exit::Usage }
    };
    match error {
        GuardError::StateFolder { source, .. } | GuardError::Control(ControlError::Io { source, .. }) => {
            io_exit(source)
        }
        GuardError::Locked { .. } | GuardError::Control(_) => Exit::Usage,
        GuardError::Driver(_) | GuardError::Runtime(_) => Exit::Internal,
    }
}

fn front_exit(error: &FrontError) -> Exit {
    match error {
        FrontError::Listen { source, .. } | FrontError::AccessLog { source, .. } => {
            if source.kind() == io::ErrorKind::PermissionDenied { Exit::NotPermitted } else { Exit::Usage }
        }
        FrontError::Certificate(_) => Exit::Usage,
        FrontError::Thread(_) => Exit::Internal,
    }
}

pub fn run(args: &Run, global: &Global) -> Result<Exit, RunError> {
    let source = Source { args: args.clone(), global: global.clone() };
    let (config, settings, warnings) = source.read()?;
    for warning in &warnings {
        let _ = writeln!(io::stderr(), "{warning}");
    }
    let (socket, state) = (settings.socket.clone(), settings.state_dir.clone());
    let style = args.log;
    let (mut printer, rest) = Printer::start();
    let guard = Guard::prepare(settings)?;
    let traffic = carrier(&config, &state)?;
    let vaults = Keepers::start(&config, &state)?;
    for line in guard.degraded() {
        let _ = writeln!(io::stderr(), "plimsoll: {line}");
    }
    guard.run(Hooks {
        reloader: Box::new(move || {
            source.read().map(|(_, settings, _)| settings).map_err(|error| error.to_string())
        }),
        traffic,
        vaults: vaults.map(|it| Box::new(it) as Box<dyn Vaults>),
        on_event: Box::new(move |event| printer.print(style, event)),
        on_listening: Box::new(move || listening(&socket)),
    })?;
    // What is still queued is printed, unless nobody reads it.
    let _ = rest.recv_timeout(PRINT_REST);
    Ok(Exit::Done)
}

/// The front, where one is configured. It listens from here on, and holds until there is an instance.
fn carrier(config: &Config, state: &Path) -> Result<Option<Box<dyn Traffic>>, RunError> {
    let descriptors = plimsoll_kernel::limits::own_descriptors().soft;
    let Some(front) = carry::config(config, state, descriptors) else { return Ok(None) };
    let started = Front::start(&front)?;
    for (address, tls) in started.addresses() {
        let scheme = if tls { "https" } else { "http" };
        let _ = writeln!(io::stderr(), "plimsoll: front on {scheme}://{address}");
    }
    Ok(Some(Box::new(Carrier::new(started, &front))))
}

fn listening(socket: &std::path::Path) {
    let _ = writeln!(io::stderr(), "plimsoll: guarding; control socket {}", socket.display());
}

/// Where the settings come from, so that a reload reads the same place again.
struct Source {
    args: Run,
    global: Global,
}

impl Source {
    fn read(&self) -> Result<(Config, Settings, Vec<Warning>), RunError> {
        let (config, warnings) = if self.args.command.is_empty() {
            Config::load(&self.path()).map_err(RunError::Config)?
        } else {
            let config = Config::for_command(&self.args.command, self.args.options(), &Host::this());
            (config.map_err(RunError::Config)?, Vec::new())
        };
        let settings = settings::settings(&config, &self.global)?;
        Ok((config, settings, warnings))
    }

    fn path(&self) -> PathBuf {
        file_or_default(self.args.file.as_deref().or(self.global.config.as_deref()))
    }
}

/// Prints events beside the guard: a terminal that is stopped, or a pipe that nobody reads, must not hold it up.
struct Printer {
    queue: SyncSender<String>,
    missed: u64,
}

impl Printer {
    /// The receiver hears of it when the last line is out and the printer gone.
    fn start() -> (Self, Receiver<()>) {
        let (printing, printed) = sync_channel::<()>(0);
        let (queue, lines) = sync_channel::<String>(LINES_WAITING);
        let print = move || {
            let _printing = printing;
            let mut out = io::stdout();
            for line in lines {
                let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
            }
        };
        // Without a thread the queue is closed and every line counts as missed; the ledger has them all.
        let builder = std::thread::Builder::new().name("plimsoll-print".to_owned());
        let _ = builder.stack_size(STACK_BYTES).spawn(print);
        (Self { queue, missed: 0 }, printed)
    }

    fn print(&mut self, style: LogStyle, event: &EventRecord) {
        if self.missed > 0 && self.queue.try_send(missed_line(style, self.missed)).is_ok() {
            self.missed = 0;
        }
        let line = match style {
            LogStyle::Text => tell::line(event),
            LogStyle::Json => serde_json::to_string(event).unwrap_or_default(),
        };
        if self.queue.try_send(line + "\n").is_err() {
            self.missed += 1;
        }
    }
}

fn missed_line(style: LogStyle, missed: u64) -> String {
    match style {
        LogStyle::Text => {
            format!("plimsoll: {missed} lines could not be printed in time; `plimsoll events` has them\n")
        }
        LogStyle::Json => format!("{{\"missed\":{missed}}}\n"),
    }
}
