//! One vault at work: its threads, started together and ended together. A fault in one of them ends this vault and
//! nothing else.

use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::config::VaultConfig;
use crate::copier::Copier;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::fence::Fence;
use crate::keeper::{Answer, Keeper, Order, Wanted};
use crate::names::Millis;
use crate::shared::{Shared, Teller};
use crate::status::Status;

const STACK_BYTES: usize = 1 << 20;
const ASKS_MAX: usize = 16;
const ANSWERS_MAX: usize = 64;
/// Before a vault that could not begin tries again: soon, since what had it may be about to end, then twice as long each
/// time, up to this.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// What is on its way to the store when the vault ends gets so long; the rest waits in the spool.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
const ASK_WITHIN: Duration = Duration::from_secs(10);

pub struct Agent {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Agent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Agent({})", self.shared.status().name)
    }
}

impl Agent {
    /// Starts it. What goes wrong, also at the start, is told by its status and its news.
    pub fn start(config: VaultConfig, news: Teller) -> Self {
        let status = Status {
            name: config.name.clone(),
            database: config.database.display().to_string(),
            to: config.store.to.clone(),
            ..Status::default()
        };
        let shared = Arc::new(Shared::new(status, news));
        let name = format!("vault-{}", config.name);
        let its = Arc::clone(&shared);
        let started = thread(&name, move || whole(&config, &its));
        if let Err(error) = &started {
            shared.problem("vault_fault", "page", format!("it could not be started: {error}"));
        }
        Self { shared, thread: started.ok() }
    }

    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Tells it to end, and returns at once.
    pub fn begin_end(&self) {
        self.shared.end();
    }

    /// Ends it and waits until it has.
    pub fn end(&mut self) {
        self.shared.end();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.end();
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(work)
}

/// The life of one vault: it is opened, again and again if need be, and works until it ends.
fn whole(config: &VaultConfig, shared: &Arc<Shared>) {
    let mut retry = RETRY_FIRST;
    while !shared.is_ended() {
        match Engine::open(config.clone()) {
            Ok(Some(engine)) => {
                shared.solved("vault_opening");
                match claim(&engine) {
                    Ok(fence) => {
                        shared.solved("vault_fenced");
                        work(&Arc::new(engine), &fence, shared);
                        return;
                    }
                    Err(error) => shared.problem("vault_fenced", "page", error.to_string()),
                }
            }
            Ok(None) => {
                let message = format!("{}: another process has this vault", config.state.display());
                shared.problem("vault_opening", "warning", message);
            }
            Err(error) => shared.problem("vault_opening", "page", error.to_string()),
        }
        if shared.sleep(retry) {
            return;
        }
        retry = (retry * 2).min(RETRY_MAX);
    }
}

/// Nothing is copied to a target that somebody else writes to. A store that cannot be reached is no obstacle.
fn claim(engine: &Engine) -> Result<Fence> {
    let fence = Fence::new(&engine.state, engine.config.beat)?;
    match fence.claim(engine.store(), Millis::now()) {
        Err(error @ Error::Fenced { .. }) => Err(error),
        Ok(()) | Err(_) => Ok(fence),
    }
}

fn work(engine: &Arc<Engine>, fence: &Fence, shared: &Arc<Shared>) {
    let (copier_asks, asks) = sync_channel(ASKS_MAX);
    let (order, orders) = sync_channel(ASKS_MAX);
    let socket = socket_path(engine.state.folder());
    let mut crew = Crew { shared: Arc::clone(shared), threads: Vec::new() };
    let copier = Copier::new(Arc::clone(engine), Arc::clone(shared));
    crew.spawn("copying", move || copier.run(&asks));
    let keeper = Keeper::new(Arc::clone(engine), Arc::clone(shared), copier_asks);
    crew.spawn("keeping", move || keeper.run(&orders));
    let (its, told, ours) = (Arc::clone(engine), Arc::clone(shared), fence.clone());
    crew.spawn("beating", move || {
        if let Err(error) = ours.keep(its.store(), |time| told.sleep(time)) {
            told.problem("vault_fenced", "page", error.to_string());
        }
    });
    let outbox = Arc::clone(engine.outbox());
    crew.spawn("sending", move || outbox.carry());
    match listen(&socket) {
        Ok(listener) => {
            let shared = Arc::clone(shared);
            crew.spawn("answering", move || answer(&listener, &order, &shared));
        }
        Err(error) => shared.problem("vault_socket", "warning", format!("{}: {error}", socket.display())),
    }
    while !shared.sleep(Duration::from_hours(1)) {}
    engine.outbox().drain(DRAIN_WITHIN);
    engine.outbox().end();
    // The listener waits in accept; a visitor lets it see that it is over.
    let _ = UnixStream::connect(&socket);
    for thread in crew.threads {
        let _ = thread.join();
    }
    let _ = std::fs::remove_file(&socket);
    fence.release(engine.store());
}

/// The threads of one vault.
struct Crew {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    /// A fault ends this vault, and is told; the process lives on.
    fn spawn(&mut self, what: &'static str, work: impl FnOnce() + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        let whole = move || {
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                shared.problem("vault_fault", "page", format!("{what} ended by a fault of its own"));
            }
            shared.end();
        };
        match thread(&format!("vault-{what}"), whole) {
            Ok(thread) => self.threads.push(thread),
            Err(error) => self.fault(format!("no thread for {what}: {error}")),
        }
    }

    fn fault(&self, message: String) {
        self.shared.problem("vault_fault", "page", message);
        self.shared.end();
    }
}

/// Where a running vault answers.
pub fn socket_path(state: &Path) -> PathBuf {
    state.join("sock")
}

fn listen(socket: &Path) -> std::io::Result<UnixListener> {
    let _ = std::fs::remove_file(socket);
    UnixListener::bind(socket)
}

/// One visitor at a time: an order in one line, answers in lines.
fn answer(listener: &UnixListener, orders: &SyncSender<Order>, shared: &Shared) {
    for stream in listener.incoming() {
        if shared.is_ended() {
            return;
        }
        let Ok(stream) = stream else { continue };
        let _ = serve(&stream, orders);
    }
}

fn serve(stream: &UnixStream, orders: &SyncSender<Order>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(ASK_WITHIN))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let what: Wanted = serde_json::from_str(&line)?;
    let (answers, told) = sync_channel(ANSWERS_MAX);
    if orders.send(Order { what, answers }).is_err() {
        return Ok(());
    }
    let mut out = stream;
    for answer in told {
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        out.write_all(&line)?;
    }
    Ok(())
}

/// Asks a running vault, and calls `each` for what it says meanwhile. `None`: none runs on this state.
pub fn ask(state: &Path, what: &Wanted, mut each: impl FnMut(&Answer)) -> Result<Option<Answer>> {
    let path = socket_path(state);
    let Ok(stream) = UnixStream::connect(&path) else { return Ok(None) };
    let failed = || Error::file("ask at", &path);
    let mut line = serde_json::to_vec(what).unwrap_or_default();
    line.push(b'\n');
    (&stream).write_all(&line).map_err(failed())?;
    for line in BufReader::new(&stream).lines() {
        let line = line.map_err(failed())?;
        let answer = serde_json::from_str(&line).map_err(|error| failed()(error.into()))?;
        if !matches!(answer, Answer::Progress { .. }) {
            return Ok(Some(answer));
        }
        each(&answer);
    }
    Err(Error::Ended("the vault ended before it answered"))
}
