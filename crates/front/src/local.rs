//! One thread's own: its connections, its pool, its copy of the setup. Nothing here is shared, so nothing is locked
//! that anybody else would wait for.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use plimsoll_core::ServiceId;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::access_log::{AccessLog, Line as LogLine};
use crate::meter::{Meter, Overdue};
use crate::patience::Patience;
use crate::pool::Pool;
use crate::setup::Setup;
use crate::shared::Shared;
use crate::stats::{Finished, RouteKey, Stats};
use crate::tls::Tls;

/// A connection that is looked at now and then.
#[derive(Debug)]
struct Watched {
    meter: Arc<Meter>,
    task: AbortHandle,
    http2: Rc<Cell<bool>>,
}

/// Connections ended for having had their time, by why.
#[derive(Debug, Default)]
pub(crate) struct Ended(pub(crate) [std::sync::atomic::AtomicU64; 6]);

#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tls: Option<Tls>,
    pub(crate) pool: Rc<Pool>,
    pub(crate) patience: Patience,
    setup: RefCell<(u64, Arc<Setup>)>,
    stats: Arc<Mutex<Stats>>,
    log: Arc<RwLock<Option<AccessLog>>>,
    ended: Arc<Ended>,
    watched: RefCell<Vec<Watched>>,
    /// The first connection after a time without any.
    pub(crate) something: Notify,
    /// Connections are to end once their requests have.
    pub(crate) closing: Notify,
    closed: Cell<bool>,
    leaving: Cell<bool>,
}

impl Local {
    pub(crate) fn new(
        shared: Arc<Shared>,
        tls: Option<Tls>,
        stats: Arc<Mutex<Stats>>,
        log: Arc<RwLock<Option<AccessLog>>>,
        ended: Arc<Ended>,
    ) -> Self {
        let pool = Rc::new(Pool::new(shared.clock.clone()));
        let setup = RefCell::new(shared.setup());
        let patience = Patience::new(Arc::clone(shared.clock.coarse()));
        Self {
            shared,
            tls,
            pool,
            patience,
            setup,
            stats,
            log,
            ended,
            watched: RefCell::new(Vec::new()),
            something: Notify::new(),
            closing: Notify::new(),
            closed: Cell::new(false),
            leaving: Cell::new(false),
        }
    }

    pub(crate) fn setup(&self) -> Arc<Setup> {
        let mut setup = self.setup.borrow_mut();
        if setup.0 != self.shared.setup_version() {
            *setup = self.shared.setup();
        }
        Arc::clone(&setup.1)
    }

    pub(crate) fn begin(&self, service: ServiceId, method: &str, path: &str) -> RouteKey {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).begin(service, method, path)
    }

    pub(crate) fn count(&self, route: RouteKey, finished: &Finished) {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).count(route, finished);
    }

    pub(crate) fn log(&self, line: impl FnOnce() -> LogLine) {
        if let Some(log) = &*self.log.read().unwrap_or_else(PoisonError::into_inner) {
            log.put(line());
        }
    }

    pub(crate) fn watch(&self, meter: Arc<Meter>, task: AbortHandle, http2: Rc<Cell<bool>>) {
        let mut watched = self.watched.borrow_mut();
        if watched.is_empty() {
            self.something.notify_one();
        }
        watched.push(Watched { meter, task, http2 });
    }

    /// Ends the connections that have had their time, lets the silent rest, and forgets those that have ended.
    pub(crate) fn sweep(&self) {
        let limits = self.setup().limits;
        self.watched.borrow_mut().retain(|it| {
            if it.task.is_finished() {
                return false;
            }
            let Some(overdue) = it.meter.overdue(&limits, it.http2.get()) else {
                it.meter.look();
                return true;
            };
            let index = match overdue {
                Overdue::Idle => 0,
                Overdue::Head => 1,
                Overdue::Body => 2,
                Overdue::BodySlow => 3,
                Overdue::Write => 4,
                Overdue::Flood => 5,
            };
            self.ended.0[index].fetch_add(1, Relaxed);
            it.task.abort();
            false
        });
        self.pool.sweep();
    }

    pub(crate) fn has_connections(&self) -> bool {
        self.watched.borrow().iter().any(|it| !it.task.is_finished())
    }

    /// No client connection, and none to an instance.
    pub(crate) fn has_nothing(&self) -> bool {
        self.watched.borrow().is_empty() && self.pool.is_empty()
    }

    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.closing.notify_waiters();
    }

    /// Each connection ends with its next answer.
    pub(crate) fn leave(&self) {
        self.leaving.set(true);
    }

    pub(crate) const fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    pub(crate) const fn is_closing(&self) -> bool {
        self.closed.get()
    }
}

/// Runs hyper's tasks on the thread that they belong to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move {
            task.await;
        });
    }
}
