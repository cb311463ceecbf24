//! `plimsoll run`: guard until told to end.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use plimsoll_front::config::{FrontConfig, ListenerConfig};
use plimsoll_front::{Front, FrontError};
use plimsoll_guard::control::ControlError;
use plimsoll_guard::records::EventRecord;
use plimsoll_guard::traffic::Traffic;
use plimsoll_guard::vaults::Vaults;
use plimsoll_guard::{Guard, GuardError, Heritage, Hooks, KEY_CONFIG, Settings, keep_text, tell};
use plimsoll_init::{Link, LinkError, init};
use plimsoll_kernel::spawn;

use crate::carry::{self, Carrier, Latest};
use crate::cli::{Exit, Global, LogStyle, Run};
use crate::config::{self, Config, ConfigErrors, Host, SecretError, Warning, file_or_default};
use crate::settings::{self, SettingsError};
use crate::vaults::Keepers;

/// Lines that wait for a slow terminal; past that they are counted. A thousand services that start at once say so much.
const LINES_WAITING: usize = 4096;
/// Printed at once, where so much is waiting.
const PRINT_BYTES: usize = 64 * 1024;
const STACK_BYTES: usize = 256 * 1024;
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
    #[error(transparent)]
    Init(#[from] LinkError),
    #[error("vault: identity: {0}")]
    Vault(#[from] SecretError),
}

impl RunError {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::Settings(_) | Self::Vault(_) => Exit::Usage,
            Self::Guard(error) => guard_exit(error),
            Self::Front(error) => front_exit(error),
            Self::Init(_) => Exit::Internal,
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
        GuardError::Driver(_) | GuardError::Runtime(_) | GuardError::Init(_) => Exit::Internal,
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

/// Becomes init, which starts a guard of this same program; `--alone` and a kernel that will not have it leave the guard
/// without one.
pub fn run(args: &Run, global: &Global) -> Result<Exit, RunError> {
    if !args.alone {
        let words = ["plimsoll", init::INIT_WORD].map(OsString::from).into_iter();
        let whole: Vec<OsString> = words.chain(std::env::args_os().skip(1)).collect();
        let errno = spawn::replace(Path::new("/proc/self/exe"), &whole);
        let _ = writeln!(io::stderr(), "plimsoll: no init of its own ({errno}): the guard is its own parent");
    }
    guard(args, global, None)
}

/// The guard that init starts.
pub fn as_child(args: &Run, global: &Global) -> Result<Exit, RunError> {
    let _ = rustix::thread::set_name(c"plimsoll-guard");
    let heritage = Heritage::greet(env!("CARGO_PKG_VERSION"))?;
    guard(args, global, Some(heritage))
}

fn guard(args: &Run, global: &Global, mut heritage: Option<Heritage>) -> Result<Exit, RunError> {
    let source = Source { args: args.clone(), global: global.clone() };
    let kept = heritage.as_mut().and_then(|it| it.take_text(KEY_CONFIG));
    let is_first = heritage.as_ref().is_none_or(|it| it.welcome().life <= 1);
    let read = match kept {
        Some(text) => source.read_as_before(&text)?,
        None if is_first => source.read()?,
        None => source.read_as_before("")?,
    };
    for warning in read.warnings.iter().filter(|_| is_first) {
        let _ = writeln!(io::stderr(), "{warning}");
    }
    let link = heritage.as_ref().map(|it| it.link().clone());
    if let Some(heritage) = &mut heritage {
        heritage.begin()?;
        keep_text(heritage.link(), KEY_CONFIG, &read.text);
    }
    let (socket, state) = (read.settings.socket.clone(), read.settings.state_dir.clone());
    let style = args.log;
    let (mut printer, rest) = Printer::start();
    let front = carry::config(&read.config, &state);
    let bound = front.as_ref().zip(heritage.as_mut()).map(|(front, it)| carry::bound(front, it));
    let bound = bound.unwrap_or_default();
    let latest = Latest::default();
    let has_front = front.is_some();
    let start = |bound| {
        let start = |front| carrier(front, bound, &state, Arc::clone(&latest), link.clone());
        front.as_ref().map(start).transpose()
    };
    let (guard, traffic) = if is_first {
        let guard = Guard::prepare_with(read.settings, heritage)?;
        (guard, start(bound)?)
    } else {
        // Connections wait: whoever takes over answers before all else.
        let traffic = start(bound)?;
        (Guard::prepare_with(read.settings, heritage)?, traffic)
    };
    let vaults = Keepers::start(&read.config, &state)?;
    for line in guard.degraded() {
        let _ = writeln!(io::stderr(), "plimsoll: {line}");
    }
    guard.run(Hooks {
        reloader: Box::new(move || {
            let read = source.read().map_err(|error| error.to_string())?;
            if read.config.front.is_some() && !has_front {
                return Err("[front] was added, which takes a restart of the guard".to_owned());
            }
            if let Some(link) = &link {
                keep_text(link, KEY_CONFIG, &read.text);
            }
            *latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(read.config);
            Ok(read.settings)
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

fn listening(socket: &std::path::Path) {
    let _ = writeln!(io::stderr(), "plimsoll: guarding; control socket {}", socket.display());
}

/// Where the settings come from, so that a reload reads the same place again.
struct Source {
    args: Run,
    global: Global,
}

/// A configuration, all of it checked.
struct Read {
    config: Config,
    settings: Settings,
    warnings: Vec<Warning>,
    /// As it was read; empty where it came from the command line.
    text: String,
}

impl Source {
    fn read(&self) -> Result<Read, RunError> {
        if !self.args.command.is_empty() {
            return self.of_command(&Host::this());
        }
        let path = self.path();
        let text = config::text_of(&path).map_err(RunError::Config)?;
        self.of_text(&path, text, Some(&Host::this()))
    }

    /// What an earlier guard went by, whatever the file says by now, and whatever has vanished that it names. Where not
    /// even that can be made out, the file counts.
    fn read_as_before(&self, text: &str) -> Result<Read, RunError> {
        if !self.args.command.is_empty() {
            return self.of_command(&Host::as_before());
        }
        let path = self.path();
        let of_text = |host| self.of_text(&path, text.to_owned(), host);
        of_text(Some(&Host::as_before())).or_else(|_| of_text(None)).or_else(|_| self.read())
    }

    fn of_text(&self, path: &Path, text: String, host: Option<&Host>) -> Result<Read, RunError> {
        let (config, warnings) = Config::parse(path, text.clone(), host).map_err(RunError::Config)?;
        let settings = settings::settings(&config, &self.global)?;
        Ok(Read { config, settings, warnings, text })
    }

    fn of_command(&self, host: &Host) -> Result<Read, RunError> {
        let config = Config::for_command(&self.args.command, self.args.options(), host);
        let config = config.map_err(RunError::Config)?;
        let settings = settings::settings(&config, &self.global)?;
        Ok(Read { config, settings, warnings: Vec::new(), text: String::new() })
    }

    fn path(&self) -> PathBuf {
        file_or_default(self.args.file.as_deref().or(self.global.config.as_deref()))
    }
}

/// The front. It listens from here on, and holds until there is an instance.
fn carrier(
    front: &FrontConfig,
    bound: Vec<(ListenerConfig, TcpListener)>,
    state: &Path,
    latest: Latest,
    link: Option<Link>,
) -> Result<Box<dyn Traffic>, RunError> {
    let started = Front::start_on(front, bound)?;
    for (address, tls) in started.addresses() {
        let scheme = if tls { "https" } else { "http" };
        let _ = writeln!(io::stderr(), "plimsoll: front on {scheme}://{address}");
    }
    Ok(Box::new(Carrier::new(started, front, state, latest, link)))
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
            while let Ok(mut text) = lines.recv() {
                while text.len() < PRINT_BYTES
                    && let Ok(line) = lines.try_recv()
                {
                    text.push_str(&line);
                }
                let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
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
