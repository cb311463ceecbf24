//! Puts a guard together: one per state folder, with its ledger, its logs, its socket and its driver.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use plimsoll_init::LinkError;
use plimsoll_init::protocol::ToInit;
use plimsoll_kernel::{self as kernel, Lock, Roots, limits};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::beside;
use crate::control::{ASKS_MAX, ControlError, Server};
pub use crate::driver::Ended;
use crate::driver::{Driver, DriverError, Parts, Reloader};
use crate::ground::Ground;
use crate::heritage::{Heritage, KEY_CONTROL, KEY_LOCK};
use crate::ledger::LedgerHandle;
use crate::logs::{PumpConfig, PumpHandle};
use crate::records::EventRecord;
use crate::traffic::Traffic;
use crate::tree;
use crate::workload::Settings;

/// Threads for work that blocks (starting, killing, evidence), which live only while there is some.
const BLOCKING_THREADS: usize = 8;
const BLOCKING_IDLE: Duration = Duration::from_secs(1);
const BLOCKING_STACK_BYTES: usize = 512 * 1024;
/// Instances left by a guard that died are given this long to be killed.
const LEFTOVER_WITHIN: Duration = Duration::from_secs(5);
/// Descriptors one instance costs the guard: output, cgroup files, kernel notifications.
const DESCRIPTORS_PER_INSTANCE: u64 = 9;
/// Descriptors of the guard itself: socket, ledger, log files, probes.
const DESCRIPTORS_OWN: u64 = 192;
/// What is still unwritten at the end is given this long.
const LOGS_STOP: Duration = Duration::from_secs(2);
/// The ledger's numbers are in what was saved, too: a slow disk must not keep the services waiting.
const TAKE_OVER_WAIT: Duration = Duration::from_millis(200);
const REMOVE_WITHIN: Duration = Duration::from_millis(500);
const LEDGER_CLOSE: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error("state folder {path}: cannot {verb}: {source}; choose another with --state")]
    StateFolder { path: PathBuf, verb: &'static str, source: io::Error },
    #[error(
        "state folder {path}: {source}; one guard at a time may use it: stop the other, or choose another with --state"
    )]
    Locked { path: PathBuf, source: kernel::Error },
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error("runtime: {0}")]
    Runtime(io::Error),
    #[error(transparent)]
    Init(#[from] LinkError),
}

/// What the caller brings along.
pub struct Hooks {
    pub reloader: Reloader,
    /// Who carries the services' requests, if anybody does.
    pub traffic: Option<Box<dyn crate::traffic::Traffic>>,
    /// Who keeps backups, if anybody does.
    pub vaults: Option<Box<dyn crate::vaults::Vaults>>,
    pub on_event: Box<dyn FnMut(&EventRecord)>,
    /// Called once the control socket answers.
    pub on_listening: Box<dyn FnOnce()>,
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Hooks")
    }
}

#[derive(Debug)]
pub struct Guard {
    settings: Settings,
    ground: Arc<Ground>,
    ledger: LedgerHandle,
    pump: PumpHandle,
    degraded: Vec<String>,
    heritage: Option<Heritage>,
    // Held for as long as the guard lives.
    _lock: Lock,
}

impl Guard {
    /// Takes the state folder and finds out what the host allows. Nothing is started yet.
    pub fn prepare(settings: Settings) -> Result<Self, GuardError> {
        Self::prepare_with(settings, None)
    }

    /// The same as init's guard, with what an earlier one may have left.
    pub fn prepare_with(settings: Settings, mut heritage: Option<Heritage>) -> Result<Self, GuardError> {
        let state = settings.state_dir.clone();
        fs::create_dir_all(&state).map_err(failed(&state, "create"))?;
        let lock = lock(&state, heritage.as_mut())?;
        let companions: Vec<i32> = heritage.iter().map(|it| it.welcome().init_pid).collect();
        let ground = Arc::new(Ground::survey_with(Roots::default(), &scope(&settings), &companions));
        let mut degraded = Vec::new();
        if heritage.is_none() {
            degraded.extend(become_parent());
        }
        degraded.extend(settings.notes.iter().cloned());
        degraded.extend(short_of_descriptors(&settings));
        degraded.extend(clean_leftovers(&ground, &kept_instances(&settings, heritage.as_ref())));
        let reduced = heritage.as_ref().is_some_and(|it| it.welcome().reduced);
        let takes_over = heritage.as_ref().is_some_and(|it| it.welcome().life > 1);
        let ledger = if reduced {
            LedgerHandle::without_disk(REDUCED)
        } else if takes_over {
            LedgerHandle::open_within(&state, TAKE_OVER_WAIT)
        } else {
            LedgerHandle::open(&state)
        };
        let pump = PumpHandle::start(PumpConfig::new(state.join("logs")))
            .map_err(failed(&state, "start keeping logs in"))?;
        Ok(Self { settings, ground, ledger, pump, degraded, heritage, _lock: lock })
    }

    /// What is worse than it should be on this host, in words.
    pub fn degraded(&self) -> &[String] {
        &self.degraded
    }

    /// Guards until told to end. Blocks.
    pub fn run(self, hooks: Hooks) -> Result<Ended, GuardError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_keep_alive(BLOCKING_IDLE)
            .thread_stack_size(BLOCKING_STACK_BYTES)
            .build()
            .map_err(GuardError::Runtime)?;
        let ground = Arc::clone(&self.ground);
        let ended = LocalSet::new().block_on(&runtime, self.serve(hooks));
        // Waits for the removals under way; those that had not begun are made up for.
        drop(runtime);
        if matches!(ended, Ok(Ended::Down)) {
            remove_groups(&ground);
        }
        ended
    }

    async fn serve(self, hooks: Hooks) -> Result<Ended, GuardError> {
        let mut heritage = self.heritage;
        let link = heritage.as_ref().map(|it| it.link().clone());
        let kept = heritage.as_mut().and_then(|it| it.take(KEY_CONTROL));
        let mut server = match kept.and_then(|socket| Server::handed_over(socket, &self.settings.socket)) {
            Some(server) => server,
            None => Server::bind(&self.settings.socket).await?,
        };
        if let Some(link) = &link {
            server.outlive_us();
            link.keep(KEY_CONTROL, server.socket())?;
        }
        let (asker, asks) = mpsc::channel(ASKS_MAX);
        let mut driver = Driver::new(Parts {
            settings: self.settings,
            ground: self.ground,
            ledger: self.ledger.clone(),
            pump: self.pump.clone(),
            asks,
            reloader: hooks.reloader,
            traffic: hooks.traffic,
            vaults: hooks.vaults,
            on_event: hooks.on_event,
            degraded: self.degraded,
            link: link.clone(),
        })?;
        if let Some(heritage) = heritage {
            driver.take_over(heritage);
        }
        let path = server.path().to_owned();
        let control = tokio::task::spawn_local(server.serve(asker, self.ledger.clone()));
        (hooks.on_listening)();
        let (ended, traffic) = driver.run().await?;
        self.pump.stop(LOGS_STOP);
        self.ledger.close(LEDGER_CLOSE);
        let Some(link) = link else {
            control.abort();
            close(traffic.as_deref());
            return Ok(ended);
        };
        match ended {
            Ended::Down => {
                control.abort();
                let _ = fs::remove_file(path);
                close(traffic.as_deref());
            }
            Ended::Replaced => {
                // No new conversations; those that are open go on meanwhile, above all that of whoever asked for this.
                control.abort();
                link.say(&ToInit::Yielded)?;
                match beside::start(move || close(traffic.as_deref())) {
                    Ok(closing) => _ = closing.await,
                    Err(close) => close(),
                }
            }
        }
        link.say(&ToInit::Bye { code: 0 })?;
        Ok(ended)
    }
}

fn close(traffic: Option<&dyn Traffic>) {
    if let Some(traffic) = traffic {
        traffic.close();
    }
}

/// A guard whose init was killed follows it a moment later, and who started the next one need not know that.
const LOCK_WITHIN: Duration = Duration::from_secs(3);

/// What `status` says of a guard after four quick ends in a row.
const REDUCED: &str =
    "reduced: earlier guards ended too quickly, so this one keeps no ledger, evidence or sweeps";

fn failed(path: &Path, verb: &'static str) -> impl FnOnce(io::Error) -> GuardError + use<> {
    let path = path.to_owned();
    move |source| GuardError::StateFolder { path, verb, source }
}

/// The lock of the state folder: the one that is kept with init, or a fresh one.
fn lock(state: &Path, heritage: Option<&mut Heritage>) -> Result<Lock, GuardError> {
    let path = state.join("lock");
    let Some(heritage) = heritage else { return take_lock(state, &path) };
    if let Some(file) = heritage.take(KEY_LOCK) {
        return Ok(Lock::handed_over(file.into(), &path));
    }
    let lock = take_lock(state, &path)?;
    heritage.link().keep(KEY_LOCK, lock.file())?;
    Ok(lock)
}

fn take_lock(state: &Path, path: &Path) -> Result<Lock, GuardError> {
    match Lock::take(path, LOCK_WITHIN) {
        Ok(lock) => Ok(lock),
        Err(kernel::Error::File { source, .. }) => Err(failed(state, "lock")(source)),
        Err(source) => Err(GuardError::Locked { path: state.to_owned(), source }),
    }
}

/// Names of the instances that init holds for us, of services that are still in the configuration.
fn kept_instances(settings: &Settings, heritage: Option<&Heritage>) -> Vec<String> {
    let known = |name: &str| {
        name.rsplit_once('.')
            .is_some_and(|(service, _)| settings.workloads.iter().any(|it| it.name() == service))
    };
    let names = heritage.iter().flat_map(|it| it.instances()).map(|it| it.name.clone());
    names.filter(|name| known(name)).collect()
}

/// The same in every life of one guard, and different for guards with different state folders.
fn scope(settings: &Settings) -> String {
    let path = fs::canonicalize(&settings.state_dir).unwrap_or_else(|_| settings.state_dir.clone());
    // FNV-1a: stable over versions, which the standard library's hasher is not.
    let hash = path.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("guard-{hash:016x}")
}

fn become_parent() -> Option<String> {
    let error = kernel::become_subreaper().err()?;
    Some(format!("not a subreaper, so children that detach from a service may be lost sight of: {error}"))
}

/// Raises our own limit as far as it goes, and says when that is not enough for what is configured.
fn short_of_descriptors(settings: &Settings) -> Option<String> {
    let limit = limits::raise_own_descriptors().unwrap_or_else(|_| limits::own_descriptors());
    let instances: u64 = settings.workloads.iter().map(|it| u64::from(it.head.replicas) + 1).sum();
    let needed = DESCRIPTORS_OWN + instances * DESCRIPTORS_PER_INSTANCE;
    let soft = limit.soft?;
    (soft < needed).then(|| {
        format!("the guard may open {soft} descriptors and needs about {needed}: raise its limit (LimitNOFILE=, ulimit -n)")
    })
}

/// Leaves no folder behind, except of what could not be ended.
fn remove_groups(ground: &Ground) {
    let Some(hierarchy) = &ground.hierarchy else { return };
    for name in hierarchy.existing().unwrap_or_default() {
        if let Ok(group) = hierarchy.open(&name)
            && group.is_empty().unwrap_or(false)
        {
            // Found and cleaned at the next start otherwise.
            let _ = group.remove(REMOVE_WITHIN);
        }
    }
    hierarchy.remove_if_empty();
}

/// What a guard that died left running is nobody's: it is ended before the same service is started a second time.
fn clean_leftovers(ground: &Ground, kept: &[String]) -> Vec<String> {
    let Some(hierarchy) = &ground.hierarchy else {
        let ended = tree::end_leftovers(&ground.roots, &ground.scope, kept);
        let told = |count| format!("{count} processes were left running by an earlier guard and were ended");
        return (ended > 0).then(|| told(ended)).into_iter().collect();
    };
    let names = hierarchy.existing().unwrap_or_default();
    let end = |name: &String| {
        let group = hierarchy.open(name).ok()?;
        let alive = !group.is_empty().unwrap_or(true);
        let ended = group.kill_all(LEFTOVER_WITHIN).and_then(|()| group.remove(LEFTOVER_WITHIN));
        match ended {
            Ok(()) if alive => Some(format!("{name} was left running by an earlier guard and was ended")),
            Ok(()) => None,
            Err(error) => Some(format!("{name} was left by an earlier guard and cannot be ended: {error}")),
        }
    };
    names.iter().filter(|name| !kept.contains(name)).filter_map(end).collect()
}
