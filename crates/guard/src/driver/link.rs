//! Init, as the driver sees it: ends of children, words about being replaced, and what it wants to hear.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use plimsoll_core::Book;
use plimsoll_init::protocol::ToInit;
use plimsoll_init::{Link, Told};
use plimsoll_kernel as kernel;
use plimsoll_kernel::process::Identity;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::Driver;
use crate::state::StateFile;

/// Words of init's that wait for the driver; then init's own queue fills.
const WORDS_MAX: usize = 1024;
const STACK_BYTES: usize = 256 * 1024;
/// Init hears of a completed cycle this often, at least and at most.
const FEED_EVERY: Duration = Duration::from_millis(500);
/// Before it lets go, a guard finishes what it has begun, for this long at most.
const CALM_WITHIN: Duration = Duration::from_secs(5);

/// What the driver keeps about init.
#[derive(Debug)]
pub(super) struct Tie {
    link: Link,
    heard: mpsc::Receiver<Told>,
    fed: Instant,
    state: Option<StateFile>,
    book: Book,
    /// Another guard stands ready; we let go once nothing is half done, or then.
    yield_by: Option<Instant>,
    /// Whoever asked for a new version.
    asked: Option<oneshot::Sender<Result<String, String>>>,
}

impl Tie {
    pub(super) fn new(link: Link) -> std::io::Result<Self> {
        let (teller, heard) = mpsc::channel(WORDS_MAX);
        let ear = link.clone();
        // A thread of its own: a start that is waited for on any other thread needs somebody who hears the answer.
        std::thread::Builder::new().name("plimsoll-link".to_owned()).stack_size(STACK_BYTES).spawn(
            move || {
                // Init gone is our own end; the kernel sees to that.
                while let Ok(told) = ear.receive(true) {
                    if told.is_some_and(|told| teller.blocking_send(told).is_err()) {
                        return;
                    }
                }
            },
        )?;
        let (fed, book) = (Instant::now(), Book::default());
        Ok(Self { link, heard, fed, state: None, book, yield_by: None, asked: None })
    }

    /// The next word of init's.
    pub(super) async fn next(&mut self) -> Told {
        match self.heard.recv().await {
            Some(told) => told,
            None => std::future::pending().await,
        }
    }

    pub(super) fn keep_state(&mut self, state: StateFile) {
        // Where it cannot be kept the next guard knows only what runs.
        let _ = self.link.keep(crate::heritage::KEY_STATE, state.file());
        self.state = Some(state);
    }

    pub(super) fn next_due(&self) -> Instant {
        let feed = self.fed + FEED_EVERY;
        self.yield_by.map_or(feed, |by| feed.min(by))
    }

    pub(super) const fn is_yielding(&self) -> bool {
        self.yield_by.is_some()
    }

    /// Does not let go: whoever stops everything sees it through.
    pub(super) const fn stay(&mut self) {
        self.yield_by = None;
    }
}

impl Driver {
    pub(super) fn told(&mut self, told: Told) {
        match told {
            Told::Exited { child, exit } => {
                self.child_ended(child, exit);
                self.check_emptying();
            }
            Told::Yield => self.begin_yield(),
            Told::NotUpgraded { why } => {
                self.say("guard", "not_upgraded", "warning", &format!("the version stays: {why}"));
                self.answer_upgrade(Err(why));
            }
            Told::Orphan => self.check_emptying(),
            Told::Leave
            | Told::Welcome(_)
            | Told::Kept { .. }
            | Told::KeptAll
            | Told::Child(_)
            | Told::Begin => {}
        }
    }

    fn child_ended(&mut self, child: Identity, exit: kernel::Exit) {
        let main = self.by_pid.contains_key(&child.pid);
        let is_instance = self.instances.values().any(|it| it.main == Some(child));
        self.ended(child.pid, exit);
        // An instance is forgotten when it is released, one whose start is not reported yet not at all.
        if main && !is_instance {
            self.nursery.forget(child);
        }
    }

    /// After each completed cycle.
    pub(super) fn feed_init(&mut self) {
        if let Some(tie) = &mut self.tie
            && tie.fed.elapsed() >= FEED_EVERY
        {
            tie.fed = Instant::now();
            let _ = tie.link.say(&ToInit::Fed);
        }
    }

    /// Saves what the next guard has to know, where that has changed.
    pub(super) fn save_state(&mut self) {
        let Some(tie) = &mut self.tie else { return };
        let Some(state) = &mut tie.state else { return };
        let Some(saved) = tie.book.update(&mut self.head) else { return };
        if let Err(error) = state.write(&saved) {
            let said = format!("the state for the next guard cannot be saved: {error}");
            if !self.degraded.contains(&said) {
                self.degraded.push(said);
            }
        }
    }

    fn begin_yield(&mut self) {
        if let Some(tie) = &mut self.tie {
            tie.yield_by = Some(Instant::now() + CALM_WITHIN);
        }
        self.say("guard", "yielding", "info", "a new version stands ready and takes over");
        self.answer_upgrade(Ok("the new version takes over".to_owned()));
    }

    /// Another one may take over now.
    pub(super) fn has_yielded(&self) -> bool {
        let Some(by) = self.tie.as_ref().and_then(|tie| tie.yield_by) else { return false };
        let busy = self.launches > 0 || self.instances.values().any(|it| it.taking_evidence || it.killing);
        !busy || Instant::now() >= by
    }

    /// Asks init for a new version. The answer comes when it stands ready, or does not.
    pub(super) fn upgrade(&mut self, path: &Path, reply: oneshot::Sender<Result<String, String>>) {
        let Some(tie) = self.tie.as_mut() else {
            let _ = reply.send(Err("this guard runs without init (--alone), which would do it".to_owned()));
            return;
        };
        if self.ending.is_some() || tie.asked.is_some() || tie.is_yielding() {
            let _ = reply.send(Err("another change is under way".to_owned()));
            return;
        }
        let opened = std::fs::File::open(path).map(OwnedFd::from).map_err(|error| error.to_string());
        let asked = opened.and_then(|binary| {
            tie.link.upgrade(&path.to_string_lossy(), binary).map_err(|error| error.to_string())
        });
        match asked {
            Ok(()) => tie.asked = Some(reply),
            Err(why) => _ = reply.send(Err(format!("{}: {why}", path.display()))),
        }
    }

    fn answer_upgrade(&mut self, answer: Result<String, String>) {
        if let Some(reply) = self.tie.as_mut().and_then(|tie| tie.asked.take()) {
            let _ = reply.send(answer);
        }
    }
}
