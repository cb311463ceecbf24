//! Starts a service's own command on a copy of its database, at an address of its own, and asks it what its health
//! check asks. What answers has to be what was started: the live service runs beside it, and would say yes as well.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use plimsoll_core::ProbeOutcome;
use plimsoll_guard::driver::{INSTANCE_VARIABLE, environment};
use plimsoll_guard::probe::{self, Answer, Probed};
use plimsoll_guard::{Address, Endpoint, ProbeKind, Workload, placeholders};
use plimsoll_kernel::process::{self, Identity, Signal};
use plimsoll_kernel::{Exit, Roots, limits, procfs, reap_one, spawn};

use super::VaultError;
use super::names::Names;
use crate::config::Service;
use crate::settings;
use crate::verbs::reach;

const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// A command without a check has to live for so long.
const LIVES_FOR: Duration = Duration::from_secs(2);
const LISTENER_WITHIN: Duration = Duration::from_secs(2);
const KILL_WITHIN: Duration = Duration::from_secs(5);
/// Of what it printed, in an error.
const LINES_MAX: usize = 10;

/// What is to be booted, and where.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    /// Of the configuration.
    pub(super) folder: &'a Path,
    pub(super) database: &'a Path,
    pub(super) copy: &'a Path,
    /// A folder for the copy's socket and its output.
    pub(super) scratch: &'a Path,
}

/// How long it took until it was ready. It is ended before this returns.
pub(super) fn boot(service: &Service, at: &Scene<'_>) -> Result<Duration, VaultError> {
    let mut workload = settings::workload(service).map_err(|error| VaultError::No(error.to_string()))?;
    let endpoint = scratch_address(service, &workload, at.scratch)?;
    on_copy(&mut workload, at)?;
    if let Some(ids) = &workload.ids {
        for path in [at.scratch, at.copy] {
            std::os::unix::fs::chown(path, Some(ids.uid), Some(ids.gid))?;
        }
    }
    let mark = format!("{}.drill-{}", service.name, std::process::id());
    let printed = at.scratch.join("output");
    let started = Instant::now();
    let mut booted = Booted::start(&workload, endpoint.as_ref(), mark, &printed)?;
    let failed = |why: String| {
        let said = last_lines(&printed);
        VaultError::No(format!("{} does not get ready on the copy: {why}{said}", service.name))
    };
    booted.ready(&workload, endpoint.as_ref()).map_err(failed)?;
    Ok(started.elapsed())
}

/// An address that the live service does not have; `None` for one that listens nowhere.
fn scratch_address(
    service: &Service,
    workload: &Workload,
    scratch: &Path,
) -> Result<Option<Endpoint>, VaultError> {
    let ip = match workload.address {
        Address::None => return Ok(None),
        Address::Socket => return Ok(Some(Endpoint::Unix(scratch.join("listen.sock")))),
        Address::Picked { .. } => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Address::Fixed(address) if placeholders::wants_port(&service.command) => reachable(address.ip()),
        Address::Fixed(address) => {
            let why = format!(
                "{} listens at {address}, and its command says so by itself: the copy would get in its way, or the live one would answer for it. Write {{port}} in the command where it names the port, or port_env instead of address",
                service.name
            );
            return Err(VaultError::Usage(why));
        }
    };
    Ok(Some(Endpoint::Tcp(TcpListener::bind((ip, 0))?.local_addr()?)))
}

/// What listens everywhere is asked at home.
fn reachable(ip: IpAddr) -> IpAddr {
    if ip.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { ip }
}

/// The copy's name for the database's in all that the service is told.
fn on_copy(workload: &mut Workload, at: &Scene<'_>) -> Result<(), VaultError> {
    let names = Names::new(at.folder, &workload.cwd, at.database);
    let mut is_told = false;
    let mut replace = |text: &mut String| {
        if let Some(changed) = names.replace(text, at.copy) {
            *text = changed;
            is_told = true;
        }
    };
    workload.command.iter_mut().for_each(&mut replace);
    workload.env.iter_mut().for_each(|(_, value)| replace(value));
    if let ProbeKind::Command { argv } = &mut workload.probe {
        // It may look into the database by itself, and that does not tell the service.
        for word in argv {
            *word = names.replace(word, at.copy).unwrap_or_else(|| word.clone());
        }
    }
    if is_told {
        return Ok(());
    }
    let why = format!(
        "{} is told its database neither by an argument nor by env, so it would be booted on the live one; write env = {{ DATABASE = \"{}\" }}, and read it in the service",
        workload.name(),
        at.database.display()
    );
    Err(VaultError::Usage(why))
}

/// Ended with all that it started, whatever happens.
struct Booted {
    roots: Roots,
    main: Identity,
    /// In the environment of everything that it starts.
    mark: String,
    env: Vec<(String, String)>,
}

impl Booted {
    fn start(
        workload: &Workload,
        endpoint: Option<&Endpoint>,
        mark: String,
        printed: &Path,
    ) -> Result<Self, VaultError> {
        let env = environment(workload, &mark, endpoint.and_then(Endpoint::port));
        let mut command = command(workload, &workload.command, &env, endpoint, File::create(printed)?);
        let roots = Roots::default();
        command.nofile = Some(workload.head.descriptors.limit.min(limits::most_descriptors(&roots)));
        command.dies_with_us = true;
        let child = spawn::spawn(&command).map_err(|error| VaultError::No(error.to_string()))?;
        Ok(Self { roots, main: child.identity, mark, env })
    }

    /// Asks until the answer is yes.
    fn ready(&mut self, workload: &Workload, endpoint: Option<&Endpoint>) -> Result<(), String> {
        let health = workload.head.health;
        let began = Instant::now();
        let mut last = "it never answered".to_owned();
        while began.elapsed() < health.start_period {
            if let Some(exit) = reap_one(self.main.pid) {
                return Err(format!("it ended with {exit}"));
            }
            if workload.probe == ProbeKind::None && began.elapsed() < LIVES_FOR {
                std::thread::sleep(LOOK_AGAIN);
                continue;
            }
            match self.ask(workload, endpoint).and_then(|()| self.owns(endpoint)) {
                Ok(()) => return Ok(()),
                Err(why) => last = why,
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Err(format!("not within {:?}; at last: {last}", health.start_period))
    }

    fn ask(&self, workload: &Workload, endpoint: Option<&Endpoint>) -> Result<(), String> {
        let health = workload.head.health;
        let question = async {
            match (&workload.probe, endpoint) {
                (ProbeKind::Tcp, Some(endpoint)) => probe::tcp(endpoint).await,
                (ProbeKind::Http { path }, Some(endpoint)) => probe::http(endpoint, path).await,
                (ProbeKind::Command { argv }, _) => self.run(workload, argv, endpoint).await,
                (ProbeKind::None | ProbeKind::Tcp | ProbeKind::Http { .. }, _) => Answer::Yes,
            }
        };
        let asked = reach::wait(async { Ok(probe::timed(question, health.timeout, health.timeout).await) });
        match asked.map_err(|error| error.to_string())? {
            Probed { outcome: ProbeOutcome::Passed { .. } | ProbeOutcome::Late { .. }, .. } => Ok(()),
            Probed { why, .. } => Err(why.unwrap_or_else(|| "it did not answer".to_owned())),
        }
    }

    /// The check's own command, as the guard would run it, for the copy.
    async fn run(&self, workload: &Workload, argv: &[String], endpoint: Option<&Endpoint>) -> Answer {
        let run = || -> Result<Identity, String> {
            let output = File::options().write(true).open("/dev/null").map_err(|error| error.to_string())?;
            let mut command = command(workload, argv, &self.env, endpoint, output);
            command.dies_with_us = true;
            Ok(spawn::spawn(&command).map_err(|error| error.to_string())?.identity)
        };
        let check = match run() {
            Ok(check) => check,
            Err(why) => return Answer::NotAsked { why: format!("check command: {why}") },
        };
        loop {
            match reap_one(check.pid) {
                None => tokio::time::sleep(LOOK_AGAIN).await,
                Some(Exit::Code(0)) => return Answer::Yes,
                Some(exit) => return Answer::No { why: format!("check command: {exit}") },
            }
        }
    }

    /// Is it one of ours that listens there? A socket's path is ours alone.
    fn owns(&self, endpoint: Option<&Endpoint>) -> Result<(), String> {
        let Some(Endpoint::Tcp(address)) = endpoint else { return Ok(()) };
        match procfs::listener_of(&self.roots, *address, LISTENER_WITHIN) {
            Ok(Some(listener)) if self.is_ours(listener.pid) => Ok(()),
            Ok(Some(listener)) => {
                let (comm, pid) = (listener.comm, listener.pid);
                Err(format!("it is {comm} (pid {pid}) that listens at {address}, and not the copy"))
            }
            Ok(None) => Err(format!("the copy does not listen at {address}, the port that it was given")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn is_ours(&self, pid: i32) -> bool {
        let is_marked = process::environ_has(&self.roots, pid, INSTANCE_VARIABLE, &self.mark);
        pid == self.main.pid || is_marked.unwrap_or(false)
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        let until = Instant::now() + KILL_WITHIN;
        let mut is_reaped = false;
        loop {
            is_reaped |= reap_one(self.main.pid).is_some();
            let all = process::all(&self.roots).into_iter().flatten();
            let ours: Vec<_> = all.filter(|it| !it.has_ended() && self.is_ours(it.pid)).collect();
            if (is_reaped && ours.is_empty()) || Instant::now() >= until {
                return;
            }
            for pid in ours.into_iter().map(|it| it.pid) {
                if let Ok(identity) = Identity::of(&self.roots, pid) {
                    let _ = process::signal(&self.roots, identity, Signal::KILL);
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn command(
    workload: &Workload,
    argv: &[String],
    env: &[(String, String)],
    endpoint: Option<&Endpoint>,
    output: File,
) -> spawn::Command {
    let (port, socket) = (endpoint.and_then(Endpoint::port), endpoint.and_then(Endpoint::socket));
    let argv = argv.iter().map(|word| placeholders::substitute(word, port, socket).into()).collect();
    let env = env.iter().map(|(key, value)| (key.into(), value.into())).collect();
    let mut command = spawn::Command::new(argv, env, workload.cwd.clone(), output.into());
    command.ids.clone_from(&workload.ids);
    command.no_new_privs = workload.no_new_privs;
    command
}

/// What it said at last, for whoever has to find out why.
fn last_lines(printed: &Path) -> String {
    let text = fs::read(printed).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES_MAX)..];
    last.iter().flat_map(|line| ["\n  | ", line]).collect()
}
