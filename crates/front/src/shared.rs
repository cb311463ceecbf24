//! What all threads of the front share: the gate with those who wait at it, the instances, and what is to be reported.
//!
//! One lock, held for a few dozen nanoseconds and never across an await.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use plimsoll_core::gate::{
    Answer as Placed, Back, Gate, GateAction, GateConfig, Outcome, Phase, Plea, Refusal, Ruling, Standing,
    Ticket,
};
use plimsoll_core::units::{Bytes, Instant};
use plimsoll_core::{InstanceId, ServiceId};
use tokio::sync::{Notify, oneshot};

use crate::clock::Clock;
use crate::config::{Protocol, ServedConfig};
use crate::endpoint::Endpoint;
use crate::hash::{QuickMap, mix};
use crate::reports::{Reporter, Reports};
use crate::setup::Setup;

/// One instance as requests reach it.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) id: InstanceId,
    /// `reports.7`
    pub(crate) name: String,
    pub(crate) endpoint: Endpoint,
    pub(crate) protocol: Protocol,
    /// No new requests go to it, so connections to it are not kept.
    withdrawn: AtomicBool,
    /// Its streams are to end.
    ending: AtomicBool,
    pub(crate) end: Arc<Notify>,
}

impl Backend {
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Relaxed)
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    fn end_streams(&self) {
        self.ending.store(true, Ordering::Release);
        self.end.notify_waiters();
    }
}

/// What a held request is told.
#[derive(Debug)]
pub(crate) enum Verdict {
    Go(Lease),
    Refused(Refusal),
}

#[derive(Debug)]
struct Inner {
    gate: Gate,
    waiting: HashMap<Ticket, oneshot::Sender<Verdict>>,
    backends: QuickMap<InstanceId, Arc<Backend>>,
    draws: u64,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    inner: Mutex<Inner>,
    setup: RwLock<Arc<Setup>>,
    /// Moves on with every new setup, so that threads look only then.
    setup_version: AtomicU64,
    pub(crate) reporter: Reporter,
    /// Something waits or is in flight: the gate's deadlines have to be kept.
    pub(crate) busy: Notify,
    is_busy: AtomicBool,
    /// Moves on when connections to an instance are not wanted any more.
    pub(crate) withdrawals: tokio::sync::watch::Sender<u64>,
    pub(crate) request_numbers: AtomicU64,
    pub(crate) connections: AtomicU32,
    pub(crate) resting: AtomicU32,
    /// Connections of each client address, where they are bounded.
    clients: Mutex<HashMap<IpAddr, u32>>,
    pub(crate) connection_closed: Notify,
}

impl Shared {
    pub(crate) fn new(gate: GateConfig, setup: Setup) -> Self {
        let inner = Inner {
            gate: Gate::new(gate),
            waiting: HashMap::new(),
            backends: QuickMap::default(),
            draws: seed(),
        };
        Self {
            clock: Clock::start(),
            inner: Mutex::new(inner),
            setup: RwLock::new(Arc::new(setup)),
            setup_version: AtomicU64::new(1),
            reporter: Reporter::default(),
            busy: Notify::new(),
            is_busy: AtomicBool::new(false),
            withdrawals: tokio::sync::watch::Sender::new(0),
            request_numbers: AtomicU64::new(seed()),
            connections: AtomicU32::new(0),
            resting: AtomicU32::new(0),
            clients: Mutex::default(),
            connection_closed: Notify::new(),
        }
    }

    pub(crate) fn setup(&self) -> (u64, Arc<Setup>) {
        // The version first: a setup that is newer than its version is only looked at once more.
        let version = self.setup_version.load(Ordering::Acquire);
        (version, Arc::clone(&self.setup.read().unwrap_or_else(PoisonError::into_inner)))
    }

    pub(crate) fn setup_version(&self) -> u64 {
        self.setup_version.load(Ordering::Acquire)
    }

    pub(crate) fn change_setup(&self, setup: Setup) {
        *self.setup.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(setup);
        self.setup_version.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn configure(&self, gate: GateConfig, services: &[ServedConfig]) {
        self.step(|inner, _| {
            inner.gate.configure(gate);
            for service in services {
                inner.gate.add(service.id, service.hang);
            }
        });
    }

    pub(crate) fn stopped(&self, service: ServiceId) {
        self.step(|inner, now| inner.gate.stand(now, service, Standing::Stopped));
    }

    /// `due_in`: when its next start is due, where it is backing off.
    pub(crate) fn expected(&self, service: ServiceId, due_in: Option<Duration>) {
        self.step(|inner, now| {
            let standing = Standing::Expected { not_before: due_in.map(|span| now + span) };
            inner.gate.stand(now, service, standing);
        });
    }

    pub(crate) fn admit(&self, id: InstanceId, name: &str, endpoint: Endpoint, protocol: Protocol) {
        self.step(|inner, now| {
            inner.backends.entry(id).or_insert_with(|| {
                Arc::new(Backend {
                    id,
                    name: name.to_owned(),
                    endpoint,
                    protocol,
                    withdrawn: AtomicBool::new(false),
                    ending: AtomicBool::new(false),
                    end: Arc::new(Notify::new()),
                })
            });
            inner.gate.admit(now, id);
        });
    }

    pub(crate) fn withdraw(&self, id: InstanceId, drain: Duration) -> u32 {
        let count = self.step(|inner, now| {
            if let Some(backend) = inner.backends.get(&id) {
                backend.withdrawn.store(true, Ordering::Relaxed);
            }
            inner.gate.withdraw(now, id, drain)
        });
        self.withdrawals.send_modify(|count| *count += 1);
        // Its streams have a deadline from now on.
        self.stir();
        count
    }

    pub(crate) fn forget(&self, id: InstanceId) {
        let backend = self.step(|inner, now| {
            inner.gate.forget(now, id);
            inner.backends.remove(&id)
        });
        if let Some(backend) = backend {
            backend.end_streams();
        }
        self.withdrawals.send_modify(|count| *count += 1);
    }

    /// A new request: it may go, or waits, or is refused. The second is the hold's own name for it.
    pub(crate) fn arrive(
        self: &Arc<Self>,
        service: ServiceId,
        body: Bytes,
        now: std::time::Instant,
    ) -> (Ticket, Place) {
        let now = self.clock.at(now);
        self.place(service, |gate, draw| gate.arrive(now, service, body, draw))
    }

    /// The same for one that comes back.
    pub(crate) fn again(self: &Arc<Self>, service: ServiceId, back: &Back) -> Place {
        let now = self.clock.now();
        self.place(service, |gate, draw| (back.ticket, gate.again(now, service, back, draw))).1
    }

    fn place(
        self: &Arc<Self>,
        service: ServiceId,
        ask: impl FnOnce(&mut Gate, u32) -> (Ticket, Placed),
    ) -> (Ticket, Place) {
        let mut inner = self.lock();
        inner.draws = inner.draws.wrapping_add(0x9e37_79b9_7f4a_7c15);
        #[expect(clippy::cast_possible_truncation, reason = "any 32 of the bits will do")]
        let draw = mix(inner.draws) as u32;
        let (ticket, placed) = ask(&mut inner.gate, draw);
        let place = match placed {
            Placed::Refused(refusal) => Place::Refused(refusal),
            Placed::Go { instance } => match inner.backends.get(&instance) {
                Some(backend) => Place::Go(Lease::new(self, backend)),
                None => Place::Refused(gone()),
            },
            Placed::Held => {
                let (sender, receiver) = oneshot::channel();
                inner.waiting.insert(ticket, sender);
                Place::Held(Waiting { shared: Arc::clone(self), service, ticket, receiver })
            }
        };
        self.carry_out(inner);
        self.stir();
        (ticket, place)
    }

    /// The gate may have a deadline now that it had not before.
    fn stir(&self) {
        if !self.is_busy.load(Ordering::Acquire) && !self.is_busy.swap(true, Ordering::AcqRel) {
            self.busy.notify_one();
        }
    }

    pub(crate) fn plead(&self, service: ServiceId, plea: &Plea) -> Ruling {
        self.step(|inner, now| inner.gate.plead(now, service, plea))
    }

    pub(crate) fn is_poison(&self, service: ServiceId, fingerprint: u64) -> bool {
        self.step(|inner, now| inner.gate.is_poison(now, service, fingerprint))
    }

    /// Keeps the gate's deadlines. False once nothing waits and nothing is in flight.
    pub(crate) fn tick(self: &Arc<Self>) -> bool {
        let now = self.clock.now();
        let mut inner = self.lock();
        inner.gate.handle_deadline(now);
        let busy = inner.gate.next_deadline().is_some();
        if !busy {
            // Set under the lock: whoever arrives after this sees it and wakes the ticker.
            self.is_busy.store(false, Ordering::Release);
        }
        self.carry_out(inner);
        busy
    }

    /// Instances that may have requests.
    pub(crate) fn wanted(&self) -> HashSet<InstanceId> {
        let inner = self.lock();
        inner.backends.values().filter(|it| !it.is_withdrawn()).map(|it| it.id).collect()
    }

    pub(crate) fn traffic(&self, service: ServiceId) -> Option<plimsoll_core::gate::ServiceTraffic> {
        self.lock().gate.traffic(service)
    }

    /// One more connection of this client; `None` when it has as many as it may. 0: as many as there are.
    pub(crate) fn count_client(self: &Arc<Self>, client: IpAddr, most: u32) -> Option<ClientCount> {
        if most == 0 {
            return Some(ClientCount(None));
        }
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let count = clients.entry(client).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(ClientCount(Some((Arc::clone(self), client))))
    }

    pub(crate) async fn reports(&self) -> Reports {
        self.reporter.take().await
    }

    fn step<T>(&self, step: impl FnOnce(&mut Inner, Instant) -> T) -> T {
        self.step_at(self.clock.now(), step)
    }

    fn step_at<T>(&self, now: Instant, step: impl FnOnce(&mut Inner, Instant) -> T) -> T {
        let mut inner = self.lock();
        let done = step(&mut inner, now);
        self.carry_out(inner);
        done
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what the gate wants done, and lets go of the lock.
    fn carry_out(&self, mut inner: MutexGuard<'_, Inner>) {
        if !inner.gate.has_actions() {
            return;
        }
        while let Some(action) = inner.gate.next_action() {
            match action {
                GateAction::Release { ticket, instance } => {
                    let verdict = match inner.backends.get(&instance) {
                        Some(backend) => Verdict::Go(Lease::unbound(backend)),
                        None => Verdict::Refused(gone()),
                    };
                    self.tell(&mut inner, ticket, verdict);
                }
                GateAction::Refuse { ticket, refusal } => {
                    self.tell(&mut inner, ticket, Verdict::Refused(refusal));
                }
                GateAction::InFlight { instance, count } => self.reporter.in_flight(instance, count),
                GateAction::Stalled { instance } => self.reporter.stalled(instance),
                GateAction::CloseStreams { instance } => {
                    if let Some(backend) = inner.backends.get(&instance) {
                        backend.end_streams();
                    }
                }
                GateAction::Tell { service, what } => self.reporter.gate(service, what),
            }
        }
    }

    fn tell(&self, inner: &mut Inner, ticket: Ticket, verdict: Verdict) {
        let Some(waiting) = inner.waiting.remove(&ticket) else { return };
        if let Err(Verdict::Go(lease)) = waiting.send(verdict) {
            // Its client left between the gate's decision and this: the place is given back.
            let now = self.clock.now();
            inner.gate.done(now, lease.backend.id, Phase::Waiting, Outcome::Left);
        }
    }
}

const fn gone() -> Refusal {
    Refusal { reason: plimsoll_core::gate::Reason::Gone, retry_after: Duration::from_secs(1) }
}

fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// A connection's place among those of its client, given back when it ends.
#[derive(Debug)]
pub(crate) struct ClientCount(Option<(Arc<Shared>, IpAddr)>);

impl Drop for ClientCount {
    fn drop(&mut self) {
        let Some((shared, client)) = &self.0 else { return };
        let mut clients = shared.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = clients.get_mut(client) {
            *count -= 1;
            if *count == 0 {
                clients.remove(client);
            }
        }
    }
}

/// What a request gets at the gate.
#[derive(Debug)]
pub(crate) enum Place {
    Go(Lease),
    Held(Waiting),
    Refused(Refusal),
}

/// A place in the hold. Dropped, it is given up: its client has gone.
#[derive(Debug)]
pub(crate) struct Waiting {
    shared: Arc<Shared>,
    service: ServiceId,
    ticket: Ticket,
    receiver: oneshot::Receiver<Verdict>,
}

impl Waiting {
    /// Waits for the gate's word.
    pub(crate) async fn verdict(mut self) -> Verdict {
        match (&mut self.receiver).await {
            Ok(Verdict::Go(mut lease)) => {
                lease.bind(&self.shared);
                Verdict::Go(lease)
            }
            Ok(refused) => refused,
            Err(_) => Verdict::Refused(gone()),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Closed first: a verdict that comes from now on is turned away and its place given back.
        self.receiver.close();
        if let Ok(Verdict::Go(mut lease)) = self.receiver.try_recv() {
            lease.bind(&self.shared);
            return;
        }
        self.shared.step(|inner, now| {
            if inner.waiting.remove(&self.ticket).is_some() {
                inner.gate.left(now, self.service, self.ticket);
            }
        });
    }
}

/// A request's place on an instance, given back whatever happens.
#[derive(Debug)]
pub(crate) struct Lease {
    /// `None` while it is on its way to the one who waits: the lock is held then, and dropping it must not take it.
    shared: Option<Arc<Shared>>,
    pub(crate) backend: Arc<Backend>,
    phase: Phase,
}

impl Lease {
    fn new(shared: &Arc<Shared>, backend: &Arc<Backend>) -> Self {
        Self { shared: Some(Arc::clone(shared)), backend: Arc::clone(backend), phase: Phase::Waiting }
    }

    fn unbound(backend: &Arc<Backend>) -> Self {
        Self { shared: None, backend: Arc::clone(backend), phase: Phase::Waiting }
    }

    fn bind(&mut self, shared: &Arc<Shared>) {
        self.shared = Some(Arc::clone(shared));
    }

    /// The head of the answer is here.
    pub(crate) fn answered(&mut self) {
        if let (Phase::Waiting, Some(shared)) = (self.phase, &self.shared) {
            self.phase = Phase::Answering;
            shared.step(|inner, now| inner.gate.answered(now, self.backend.id));
        }
    }

    /// The answer goes on for an unknown time.
    pub(crate) fn streams(&mut self) {
        if let (Phase::Answering, Some(shared)) = (self.phase, &self.shared) {
            self.phase = Phase::Streaming;
            shared.step(|inner, now| inner.gate.streams(now, self.backend.id));
        }
    }

    pub(crate) fn finish(self, outcome: Outcome) {
        self.finish_at(std::time::Instant::now(), outcome);
    }

    pub(crate) fn finish_at(mut self, now: std::time::Instant, outcome: Outcome) {
        self.give_back(now, outcome);
    }

    fn give_back(&mut self, now: std::time::Instant, outcome: Outcome) {
        if let Some(shared) = self.shared.take() {
            let (id, phase) = (self.backend.id, self.phase);
            shared.step_at(shared.clock.at(now), |inner, now| inner.gate.done(now, id, phase, outcome));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.shared.is_some() {
            self.give_back(std::time::Instant::now(), Outcome::Left);
        }
    }
}
