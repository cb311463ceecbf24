//! What the threads of one vault have in common: its status, its news, its end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::status::{News, Status};

/// A problem that lasts is told again this seldom.
const TOLD_EVERY: Duration = Duration::from_hours(1);

/// Tells news to somebody, without waiting for them.
#[derive(Clone)]
pub struct Teller(Arc<dyn Fn(News) + Send + Sync>);

impl Teller {
    pub fn new(tell: impl Fn(News) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }
}

impl fmt::Debug for Teller {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Teller")
    }
}

#[derive(Debug)]
pub struct Shared {
    name: String,
    status: Mutex<Status>,
    /// By what it is about, so that a problem that is over can be taken back.
    problems: Mutex<BTreeMap<&'static str, Problem>>,
    news: Teller,
    /// It is over: set once, and what sleeps is woken.
    ended: AtomicBool,
    /// Held between looking at `ended` and sleeping, so that no end is slept through.
    sleeps: Mutex<()>,
    wakes: Condvar,
    /// Nothing in the store leads to where the copying begins.
    wants_snapshot: AtomicBool,
}

#[derive(Debug)]
struct Problem {
    message: String,
    told: Instant,
}

impl Shared {
    pub fn new(status: Status, news: Teller) -> Self {
        Self {
            name: status.name.clone(),
            status: Mutex::new(status),
            problems: Mutex::default(),
            news,
            ended: AtomicBool::new(false),
            sleeps: Mutex::default(),
            wakes: Condvar::new(),
            wants_snapshot: AtomicBool::new(false),
        }
    }

    pub fn status(&self) -> Status {
        let mut status = lock(&self.status).clone();
        status.problems = lock(&self.problems).values().map(|it| it.message.clone()).collect();
        status
    }

    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut lock(&self.status));
    }

    /// News are told at once or not at all: nobody waits for whoever reads them.
    pub fn say(&self, kind: &'static str, severity: &'static str, message: String) {
        (self.news.0)(News { vault: self.name.clone(), kind, severity, message });
    }

    /// A problem, told once and then now and then while it lasts.
    pub fn problem(&self, about: &'static str, severity: &'static str, message: String) {
        let mut problems = lock(&self.problems);
        let told = problems.get(about).filter(|it| it.told.elapsed() < TOLD_EVERY).map(|it| it.told);
        problems.insert(about, Problem { message: message.clone(), told: told.unwrap_or_else(Instant::now) });
        drop(problems);
        if told.is_none() {
            self.say(about, severity, message);
        }
    }

    pub fn solved(&self, about: &'static str) {
        let over = lock(&self.problems).remove(about);
        if let Some(problem) = over {
            self.say(about, "info", format!("is over: {}", problem.message));
        }
    }

    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
        drop(lock(&self.sleeps));
        self.wakes.notify_all();
    }

    pub fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// The same, for long work that looks at it now and then.
    pub fn ended(&self) -> &AtomicBool {
        &self.ended
    }

    /// A snapshot is needed, since nothing leads to where we are.
    pub fn want_snapshot(&self) {
        self.wants_snapshot.store(true, Ordering::Relaxed);
    }

    /// Was one needed? It is being seen to.
    pub fn take_want(&self) -> bool {
        self.wants_snapshot.swap(false, Ordering::Relaxed)
    }

    /// Whether it ended meanwhile.
    pub fn sleep(&self, time: Duration) -> bool {
        let asleep = lock(&self.sleeps);
        drop(self.wakes.wait_timeout_while(asleep, time, |()| !self.is_ended()));
        self.is_ended()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
