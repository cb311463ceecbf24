//! An open-model load: requests come when they are due, whether or not those before them are answered, as users do.
//! Half are POSTs with a title of their own, half GETs; half of each on kept connections, half on new ones.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep_until;

use crate::bench::front::client::{Client, Outcome, PATIENCE};
use crate::error::{Error, Result};

const PER_SECOND: u32 = 200;

#[derive(Debug)]
pub(super) struct Load {
    signs: Arc<Signs>,
    thread: JoinHandle<Result<Done>>,
}

/// What the load and the one who steers it tell each other.
#[derive(Debug, Default)]
struct Signs {
    stop: AtomicBool,
    done: AtomicU64,
}

/// All that was sent.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) outcomes: Vec<Outcome>,
    /// Kept connections that the other side closed.
    pub(super) closed: u64,
}

impl Load {
    /// `tag` makes the titles differ from those of other loads.
    pub(super) fn start(port: u16, tag: String) -> Self {
        let signs = Arc::new(Signs::default());
        let theirs = Arc::clone(&signs);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(Error::file("start", "the runtime"))?;
            Ok(LocalSet::new().block_on(&runtime, generate(port, &tag, &theirs)))
        });
        Self { signs, thread }
    }

    /// Requests that succeeded so far.
    pub(super) fn done(&self) -> u64 {
        self.signs.done.load(Ordering::Relaxed)
    }

    /// Sends no more, and waits for the answers.
    pub(super) fn stop(self) -> Result<Done> {
        self.signs.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| Err(Error::Check("the generator of load panicked".into())))
    }
}

async fn generate(port: u16, tag: &str, signs: &Arc<Signs>) -> Done {
    let client = Rc::new(Client::new(port));
    let outcomes = Rc::new(RefCell::new(Vec::new()));
    let begun = Instant::now();
    let mut number = 0_u32;
    while !signs.stop.load(Ordering::Relaxed) {
        let intended = begun + Duration::from_secs(1) * number / PER_SECOND;
        sleep_until(intended.into()).await;
        let title = number.is_multiple_of(2).then(|| format!("{tag}-{number}"));
        let keep = (number / 2).is_multiple_of(2);
        let (client, outcomes, signs) = (Rc::clone(&client), Rc::clone(&outcomes), Arc::clone(signs));
        spawn_local(async move {
            let begun = Instant::now();
            let end = client.ask(keep, title.clone()).await;
            signs.done.fetch_add(u64::from(end == crate::bench::front::client::End::Done), Ordering::Relaxed);
            outcomes.borrow_mut().push(Outcome { title, intended, begun, ended: Instant::now(), end });
        });
        number += 1;
    }
    let deadline = Instant::now() + PATIENCE + Duration::from_secs(1);
    while outcomes.borrow().len() < number as usize && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Done { outcomes: outcomes.take(), closed: client.closed_on_us() }
}
