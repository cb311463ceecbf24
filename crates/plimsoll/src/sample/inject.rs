//! Makes the faults happen.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::future::Future;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::faults::{Crash, Fault, Kind};
use super::pace::{Pace, TICK};
use super::{say, stray};

/// Between the answer and a fault that would take the answer with it.
const FUSE: Duration = Duration::from_millis(20);

/// One line of the log fault.
const LOG_LINE: &str = "fault: a line of the kind that a debug switch left on in production would print\n";

/// What the faults hold on to and what they changed about the service.
#[derive(Debug)]
pub(super) struct Faults {
    /// A file that can be opened as often as wanted.
    file: PathBuf,
    memory: RefCell<Vec<Vec<u8>>>,
    descriptors: RefCell<Vec<OwnedFd>>,
    slow: Cell<Option<(Duration, Instant)>>,
    ignores_term: Cell<bool>,
}

/// What leaked so far, for `/stats`.
#[derive(Debug, Serialize)]
pub(super) struct Leaked {
    leaked_bytes: usize,
    leaked_descriptors: usize,
}

impl Faults {
    /// `file` is what a leak of files opens.
    pub(super) fn new(file: PathBuf) -> Self {
        Self {
            file,
            memory: RefCell::default(),
            descriptors: RefCell::default(),
            slow: Cell::new(None),
            ignores_term: Cell::new(false),
        }
    }

    /// How long an answer that is asked for `now` has to wait.
    pub(super) fn delay(&self, now: Instant) -> Duration {
        match self.slow.get() {
            Some((delay, until)) if now < until => delay,
            Some(_) | None => Duration::ZERO,
        }
    }

    pub(super) fn ignores_term(&self) -> bool {
        self.ignores_term.get()
    }

    pub(super) fn leaked(&self) -> Leaked {
        Leaked {
            leaked_bytes: self.memory.borrow().iter().map(Vec::len).sum(),
            leaked_descriptors: self.descriptors.borrow().len(),
        }
    }

    /// Starts `fault` in the background, within a [`tokio::task::LocalSet`]. Only what cannot start is an error.
    pub(super) fn start(self: &Rc<Self>, fault: Fault) -> io::Result<()> {
        say(&format!("fault: {fault:?}"));
        match fault {
            Fault::LeakHeap { rate_bytes, total_bytes } => {
                background(Rc::clone(self).leak_heap(Pace::new(rate_bytes, total_bytes)));
            }
            Fault::LeakDescriptors { kind, rate, total } => {
                let open = self.opener(kind)?;
                background(Rc::clone(self).leak_descriptors(Pace::new(rate, total), open));
            }
            Fault::Spike { size_bytes, over, keep } => {
                background(spike(Pace::within(size_bytes, over), keep));
            }
            Fault::Hang => background(hang()),
            Fault::Crash(crash) => background(end(crash)),
            Fault::IgnoreTerm => self.ignores_term.set(true),
            Fault::Log { rate_bytes, lasts } => background(log(rate_bytes, lasts)),
            Fault::Fork { lasts } => {
                let pid = stray::leave_behind(lasts)?;
                say(&format!("fault: left process {pid} behind"));
            }
            Fault::Slow { delay, lasts } => self.slow.set(Some((delay, Instant::now() + lasts))),
        }
        Ok(())
    }

    async fn leak_heap(self: Rc<Self>, pace: Pace) {
        drip(pace, |bytes| {
            self.memory.borrow_mut().push(touched(bytes));
            Ok(())
        })
        .await;
    }

    async fn leak_descriptors(self: Rc<Self>, pace: Pace, open: Opener) {
        let mut surplus = 0;
        drip(pace, |amount| {
            // A pipe is two at once: what one tick takes too many, the next takes less.
            let wanted = usize::try_from(amount).unwrap_or(usize::MAX);
            let mut taken = surplus;
            while taken < wanted {
                let opened = open()?;
                taken += opened.len();
                self.descriptors.borrow_mut().extend(opened);
            }
            surplus = taken - wanted;
            Ok(())
        })
        .await;
    }

    fn opener(&self, kind: Kind) -> io::Result<Opener> {
        Ok(match kind {
            Kind::Pipe => Box::new(|| {
                let (reader, writer) = io::pipe()?;
                Ok(vec![reader.into(), writer.into()])
            }),
            Kind::File => {
                let file = self.file.clone();
                Box::new(move || Ok(vec![File::open(&file)?.into()]))
            }
            Kind::Socket => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
                let address = listener.local_addr()?;
                Box::new(move || {
                    let near = TcpStream::connect(address)?;
                    let (far, _) = listener.accept()?;
                    Ok(vec![near.into(), far.into()])
                })
            }
        })
    }
}

/// Opens one or two descriptors.
type Opener = Box<dyn Fn() -> io::Result<Vec<OwnedFd>>>;

fn background(fault: impl Future<Output = ()> + 'static) {
    // Nobody waits for a fault: it ends by itself, or with the process.
    drop(spawn_local(fault));
}

/// Calls `take` with what is due at every tick, until all of it was taken or `take` fails.
async fn drip(mut pace: Pace, mut take: impl FnMut(u64) -> io::Result<()>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut last = Instant::now();
    while !pace.is_spent() {
        ticks.tick().await;
        let now = Instant::now();
        let due = pace.due(now - last);
        last = now;
        if let Err(error) = take(due) {
            say(&format!("fault: stopped early: {error}"));
            return;
        }
    }
}

/// Memory that is resident: what was never written would not be.
fn touched(bytes: u64) -> Vec<u8> {
    vec![0xa5; usize::try_from(bytes).unwrap_or(usize::MAX)]
}

async fn spike(pace: Pace, keep: Duration) {
    let mut held = Vec::new();
    drip(pace, |bytes| {
        held.push(touched(bytes));
        Ok(())
    })
    .await;
    sleep(keep).await;
}

async fn hang() {
    sleep(FUSE).await;
    // Blocks the one thread, and with it the loop that serves, the timers and the signal handler's reader.
    loop {
        std::thread::park();
    }
}

async fn end(crash: Crash) {
    sleep(FUSE).await;
    match crash {
        Crash::Abort => std::process::abort(),
        Crash::Exit(code) => std::process::exit(code.into()),
        Crash::Signal(signal) => {
            // Twice, because Rust's own handler for SIGSEGV and SIGBUS takes itself away at the first.
            for _ in 0..2 {
                let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
            }
            std::process::abort();
        }
    }
}

/// Prints at a rate; a reader that is too slow blocks the service, as it would any that logs to a pipe.
async fn log(rate_bytes: u64, lasts: Duration) {
    let line = LOG_LINE.len() as u64;
    let lines = Pace::new(rate_bytes / line, (rate_bytes / line).saturating_mul(lasts.as_secs().max(1)));
    let ends = Instant::now() + lasts;
    drip(lines, |due| {
        if Instant::now() > ends {
            return Err(io::Error::other("its time is over"));
        }
        let text = LOG_LINE.repeat(usize::try_from(due).unwrap_or(usize::MAX));
        io::stdout().write_all(text.as_bytes())
    })
    .await;
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;

    /// Runs `fault` on a service of its own until `done`, at most ten seconds.
    fn until(fault: Fault, done: impl Fn(&Faults) -> bool) -> Rc<Faults> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("open-me");
        std::fs::write(&file, "").unwrap();
        let faults = Rc::new(Faults::new(file));
        LocalSet::new().block_on(&runtime, async {
            faults.start(fault).unwrap();
            let deadline = Instant::now() + Duration::from_secs(10);
            while !done(&faults) {
                assert!(Instant::now() < deadline, "{fault:?} did not get there: {:?}", faults.leaked());
                sleep(TICK).await;
            }
        });
        faults
    }

    #[test]
    fn a_heap_leak_stops_exactly_at_its_total() {
        let leak = Fault::LeakHeap { rate_bytes: 100 << 20, total_bytes: 5_000_001 };
        until(leak, |faults| faults.leaked().leaked_bytes == 5_000_001);
    }

    #[test]
    fn descriptors_of_every_kind_leak_to_their_total() {
        for kind in [Kind::Pipe, Kind::File, Kind::Socket] {
            let leak = Fault::LeakDescriptors { kind, rate: 2000, total: 40 };
            until(leak, |faults| faults.leaked().leaked_descriptors == 40);
        }
    }

    #[test]
    fn slowness_ends_by_itself() {
        let [delay, lasts] = [3, 20].map(Duration::from_secs);
        let faults = until(Fault::Slow { delay, lasts }, |_| true);
        assert_eq!(faults.delay(Instant::now()), delay);
        assert_eq!(faults.delay(Instant::now() + lasts), Duration::ZERO);
    }

    #[test]
    fn sigterm_is_minded_until_told_otherwise() {
        assert!(!Faults::new(PathBuf::new()).ignores_term());
        assert!(until(Fault::IgnoreTerm, |_| true).ignores_term());
    }
}
