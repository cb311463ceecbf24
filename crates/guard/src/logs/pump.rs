//! The handle to the two threads.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use super::LogBounds;
use super::bucket::Rate;
use super::line::Gap;
use super::outbox::Outbox;
use super::pipes::Pipes;
use super::shelf::Shelf;

/// How long [`PumpHandle::flush`] waits: it stands between a fault and what is done about it.
const FLUSH_WAIT: Duration = Duration::from_millis(50);
/// Places that an empty queue keeps.
pub(super) const QUEUE_KEPT: usize = 32;

/// Where output goes, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PumpConfig {
    /// The folder with one folder per service.
    pub logs: PathBuf,
    /// What a service may store all the time.
    pub bytes_per_second: u64,
    /// What it may store at once after it has been quiet.
    pub burst_bytes: u64,
}

impl PumpConfig {
    /// 4 MB/s for each service, and 32 MB at once: a long stack trace passes, a loop that prints does not.
    pub fn new(logs: PathBuf) -> Self {
        Self { logs, bytes_per_second: 4_000_000, burst_bytes: 32_000_000 }
    }
}

/// What `status` says of the logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PumpHealth {
    /// Whether what services print can be stored.
    pub ok: bool,
    /// What is wrong; empty when nothing is.
    pub message: String,
    /// Not stored since the guard started: over the rate, or for want of a disk.
    pub dropped_lines: u64,
    pub dropped_bytes: u64,
}

/// The way to the pump. Cheap to clone; both threads end when the last clone is gone.
#[derive(Clone, Debug)]
pub struct PumpHandle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    commands: Arc<Commands>,
    counters: Arc<Counters>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let (stopped, _) = sync_channel(1);
        self.commands.send(Command::Stop(stopped));
    }
}

impl PumpHandle {
    /// Starts both threads. Nothing is written before something is printed.
    pub fn start(config: PumpConfig) -> io::Result<Self> {
        let rate = Rate { bytes_per_second: config.bytes_per_second.max(1), burst_bytes: config.burst_bytes };
        let commands = Arc::new(Commands::new()?);
        let counters = Arc::new(Counters::default());
        let outbox = Arc::new(Outbox::default());
        let pipes = Pipes::new(rate, Arc::clone(&commands), Arc::clone(&outbox), Arc::clone(&counters))?;
        let shelf = Shelf::new(config.logs, outbox, Arc::clone(&counters));
        thread::Builder::new().name("plimsoll-shelf".to_owned()).spawn(|| shelf.run())?;
        thread::Builder::new().name("plimsoll-pump".to_owned()).spawn(|| pipes.run())?;
        Ok(Self { inner: Arc::new(Inner { commands, counters }) })
    }

    /// Takes over the read end of an instance's output, until everybody has closed the other end. `instance` is its name,
    /// `reports.7`. The bounds are the service's, from now on.
    pub fn add(&self, service: &str, instance: &str, output: OwnedFd, bounds: LogBounds) {
        let (service, instance) = (service.into(), instance.into());
        self.inner.commands.send(Command::Add { service, instance, output, bounds });
    }

    /// Brings what the service has printed so far into its file, for somebody who is about to read it. Waits 50 ms at
    /// most; says whether that was enough.
    pub fn flush(&self, service: &str) -> bool {
        let (done, flushed) = sync_channel(1);
        self.inner.commands.send(Command::Flush { service: service.into(), done });
        flushed.recv_timeout(FLUSH_WAIT).is_ok()
    }

    pub fn health(&self) -> PumpHealth {
        self.inner.counters.health()
    }

    /// Stores what is in the pipes now and ends both threads; says whether that came about in time. Services that go on
    /// printing find nobody who reads.
    pub fn stop(&self, within: Duration) -> bool {
        let (done, stopped) = sync_channel(1);
        self.inner.commands.send(Command::Stop(done));
        stopped.recv_timeout(within).is_ok()
    }
}

pub(super) enum Command {
    Add {
        service: Arc<str>,
        instance: Box<str>,
        output: OwnedFd,
        bounds: LogBounds,
    },
    Flush {
        service: Box<str>,
        done: SyncSender<()>,
    },
    /// Answered once everything is on the disk.
    Stop(SyncSender<()>),
}

/// From the handle to the pump's thread. A few per instance and never more at once than there are callers, since who
/// asks for an answer waits for it.
#[derive(Debug)]
pub(super) struct Commands {
    queue: Mutex<VecDeque<Command>>,
    wake: OwnedFd,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Add { .. } => "Add",
            Self::Flush { .. } => "Flush",
            Self::Stop(_) => "Stop",
        })
    }
}

impl Commands {
    fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { queue: Mutex::default(), wake })
    }

    fn send(&self, command: Command) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(command);
        // Fails only when it would wake for the 2^64th time without having been heard.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    pub(super) fn next(&self) -> Option<Command> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let command = queue.pop_front();
        if command.is_none() {
            // A thousand services start once; the room that took is not kept.
            queue.shrink_to(QUEUE_KEPT);
        }
        command
    }

    /// Readable when there are commands.
    pub(super) const fn wake(&self) -> &OwnedFd {
        &self.wake
    }

    pub(super) fn quiet(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
    }
}

/// What both threads count and say.
#[derive(Debug, Default)]
pub(super) struct Counters {
    lines: AtomicU64,
    bytes: AtomicU64,
    message: Mutex<String>,
}

impl Counters {
    pub(super) fn dropped(&self, gap: Gap) {
        self.lines.fetch_add(gap.lines, Ordering::Relaxed);
        self.bytes.fetch_add(gap.bytes, Ordering::Relaxed);
    }

    pub(super) fn set_message(&self, message: String) {
        *self.message.lock().unwrap_or_else(PoisonError::into_inner) = message;
    }

    fn health(&self) -> PumpHealth {
        let message = self.message.lock().unwrap_or_else(PoisonError::into_inner).clone();
        PumpHealth {
            ok: message.is_empty(),
            message,
            dropped_lines: self.lines.load(Ordering::Relaxed),
            dropped_bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}
