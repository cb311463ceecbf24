//! Puts a guard together: one per state folder, with its ledger, its logs, its socket and its driver.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_kernel::{self as kernel, Lock, Roots, limits};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::control::{ASKS_MAX, ControlError, Server};
use crate::driver::{Driver, DriverError, Parts, Reloader};
use crate::ground::Ground;
use crate::ledger::LedgerHandle;
use crate::logs::{PumpConfig, PumpHandle};
use crate::records::EventRecord;
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
    // Held for as long as the guard lives.
    _lock: Lock,
}

impl Guard {
    /// Takes the state folder and finds out what the host allows. Nothing is started yet.
    pub fn prepare(settings: Settings) -> Result<Self, GuardError> {
        let state = settings.state_dir.clone();
        let failed = |verb| {
            let path = state.clone();
            move |source| GuardError::StateFolder { path, verb, source }
        };
        fs::create_dir_all(&state).map_err(failed("create"))?;
        let lock = match Lock::take(&state.join("lock")) {
            Ok(lock) => lock,
            Err(kernel::Error::File { source, .. }) => return Err(failed("lock")(source)),
            Err(source) => return Err(GuardError::Locked { path: state, source }),
        };
        let ground = Arc::new(Ground::survey(Roots::default(), &scope(&settings)));
        let mut degraded = Vec::new();
        degraded.extend(become_parent());
        degraded.extend(short_of_descriptors(&settings));
        degraded.extend(clean_leftovers(&ground));
        let ledger = LedgerHandle::open(&state);
        let pump = PumpHandle::start(PumpConfig::new(state.join("logs")))
            .map_err(failed("start keeping logs in"))?;
        Ok(Self { settings, ground, ledger, pump, degraded, _lock: lock })
    }

    /// What is worse than it should be on this host, in words.
    pub fn degraded(&self) -> &[String] {
        &self.degraded
    }

    /// Guards until told to end. Blocks.
    pub fn run(self, hooks: Hooks) -> Result<(), GuardError> {
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
        remove_groups(&ground);
        ended
    }

    async fn serve(self, hooks: Hooks) -> Result<(), GuardError> {
        let server = Server::bind(&self.settings.socket).await?;
        let (asker, asks) = mpsc::channel(ASKS_MAX);
        let driver = Driver::new(Parts {
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
        })?;
        let control = tokio::task::spawn_local(server.serve(asker, self.ledger.clone()));
        (hooks.on_listening)();
        let ended = driver.run().await;
        control.abort();
        self.pump.stop(LOGS_STOP);
        self.ledger.close(LEDGER_CLOSE);
        Ok(ended?)
    }
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
fn clean_leftovers(ground: &Ground) -> Vec<String> {
    let Some(hierarchy) = &ground.hierarchy else {
        let ended = tree::end_leftovers(&ground.roots, &ground.scope);
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
    names.iter().filter_map(end).collect()
}
