//! The world of one seed: jumps to what happens next, tells the head, carries out what it wants, and lets the checkers
//! look at every step.

mod deaths;

use std::time::Duration;

use plimsoll_core::units::Instant;
use plimsoll_core::{
    Action, Event, Head, InstanceState, Intent, Order, Planted, ServiceId, ServiceState, ServiceView,
};

use crate::checkers::{self, Checker};
use crate::clock::Clock;
use crate::draw::{self, Tempo};
use crate::facts::{Facts, ServiceFacts, Step};
use crate::faults::{self, Fault, Strike};
use crate::front::{self, Front, FrontItem, Verdict};
use crate::kernel::{Host, Item, Kernel};
use crate::replay::{Trace, Violation};
use crate::rng::Rng;

pub use deaths::Deaths;
pub(crate) use deaths::Left;

/// More steps than this in one run is a run that spins.
const STEPS_MAX: u64 = 400_000;
/// After everything is as wanted the world goes on a little, in case it does not stay so.
const QUIET: Duration = Duration::from_secs(3);

pub(crate) struct World {
    head: Head,
    kernel: Kernel,
    front: Front,
    clock: Clock,
    facts: Facts,
    tempos: Vec<Tempo>,
    strikes: Vec<Strike>,
    /// The guard stands still until then; what happens meanwhile waits for it.
    frozen_until: Option<Instant>,
    backlog: Vec<Event>,
    views: Vec<ServiceView>,
    checkers: Vec<Box<dyn Checker>>,
    pub(crate) trace: Trace,
    pub(crate) steps: u64,
    settled_since: Option<Instant>,
    pub(crate) deaths: Deaths,
    died: u32,
    /// A new guard is just taking over.
    adopting: bool,
    plant: Option<Planted>,
    /// What the guard saved before it did what it had decided last, and the time before.
    saved: Vec<u8>,
    saved_before: Vec<u8>,
}

impl World {
    pub(crate) fn new(seed: u64, plant: Option<Planted>, trace: Trace) -> Self {
        let mut rng = Rng::new(seed);
        let mut head = Head::new(1);
        if let Some(bug) = plant {
            head.plant(bug);
        }
        let count = rng.pick(&[1, 1, 1, 2, 3]);
        let (mut hosts, mut services, mut tempos) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..count {
            let tempo = draw::tempo(&mut rng);
            let config = draw::config(&mut rng, &format!("s{number}"), tempo);
            let build = draw::build(&mut rng, &config);
            head.add(config.clone(), 1);
            hosts.push(Host { config: config.clone(), build, mood: crate::mood::Mood::default() });
            services.push(ServiceFacts::new(config));
            tempos.push(tempo);
        }
        let window = rng.pick(&[Duration::from_secs(20), Duration::from_mins(1), Duration::from_secs(200)]);
        let configs: Vec<_> = services.iter().map(|it| it.config.clone()).collect();
        let strikes = faults::plan(&mut rng, &configs, window);
        let mut front = Front::new(&mut rng, plant);
        for (id, service) in services.iter().enumerate().filter(|(id, _)| hosts[*id].build.has_front) {
            let id = ServiceId(u32::try_from(id).expect("few services"));
            front.add(Instant::default(), id, service.config.health.hang);
        }
        let views = (0..count).filter_map(|id| head.view(Instant::default(), ServiceId(id))).collect();
        let mut world = Self {
            head,
            kernel: Kernel::new(hosts, rng),
            front,
            clock: Clock::default(),
            facts: Facts { services, healed: None, disturbed: None },
            tempos,
            strikes,
            frozen_until: None,
            backlog: Vec::new(),
            views,
            checkers: checkers::all(),
            trace,
            steps: 0,
            settled_since: None,
            deaths: Deaths::None,
            died: 0,
            adopting: false,
            plant,
            saved: Vec::new(),
            saved_before: Vec::new(),
        };
        for host in &world.kernel.hosts {
            world.trace.introduce(|| format!("{:?}\n  {:?}", host.config, host.build));
        }
        world.trace.introduce(|| format!("{:?}", world.front.config()));
        world.plan_the_day(window);
        world
    }

    fn plan_the_day(&mut self, window: Duration) {
        for id in self.ids() {
            if self.kernel.rng.chance(95) {
                let at = Instant::default() + self.kernel.rng.latency(1, 1500);
                let event = Event::Ordered { service: id, order: Order::Start };
                self.kernel.agenda.plan(at, Item::Say(event));
            }
        }
        for (index, strike) in self.strikes.iter().enumerate() {
            self.kernel.agenda.plan(strike.at, Item::Strike(index));
        }
        let last = self.strikes.iter().map(|strike| strike.at).max().unwrap_or_default();
        let heal = last.max(Instant::default() + window) + Duration::from_secs(1);
        self.kernel.agenda.plan(heal, Item::Heal);
        let strikes: Vec<_> = self.strikes.iter().map(|it| it.at).collect();
        for id in self.ids() {
            if !self.kernel.has_front(id) {
                continue;
            }
            let storms = self.front.storms();
            for at in draw::arrivals(&mut self.kernel.rng, &strikes, window, heal, storms) {
                self.kernel.agenda.plan(at, Item::Front(FrontItem::Arrive(id)));
            }
        }
    }

    /// Runs to the end: everything as wanted after the faults have stopped, or the first broken rule.
    pub(crate) fn run(&mut self) -> Result<(), Violation> {
        while !self.is_over()? {
            self.jump()?;
        }
        self.trace.note(self.clock.head(), || "the end: all as wanted".into());
        Ok(())
    }

    /// Goes to whatever is next: a deadline of the head, or something of the world's own.
    fn jump(&mut self) -> Result<(), Violation> {
        let due = [self.head.next_deadline(), self.front.next_deadline()].into_iter().flatten().min();
        let due = due.map(|at| self.clock.to_world(at));
        let due = due.map(|at| at.max(self.frozen_until.unwrap_or(at)));
        let next = self.kernel.agenda.next();
        match (due, next) {
            (Some(due), next) if next.is_none_or(|next| due < next) => {
                self.clock.world = due;
                self.due_first()?;
            }
            (_, Some(_)) => {
                let Some((at, item)) = self.kernel.agenda.take() else { return Ok(()) };
                self.clock.world = self.clock.world.max(at);
                self.happen(item)?;
            }
            (_, None) => return Err(self.violation("world", "nothing will ever happen again".into())),
        }
        self.hear_front()
    }

    /// What the gate has to say to the head.
    fn hear_front(&mut self) -> Result<(), Violation> {
        while let Some(event) = self.front.events.pop_front() {
            self.deliver(event)?;
        }
        Ok(())
    }

    /// What is due is dealt with before anything new.
    fn due_first(&mut self) -> Result<(), Violation> {
        let now = self.clock.head();
        if self.front.next_deadline().is_some_and(|at| at <= now) {
            self.steps += 1;
            self.at_front(Front::handle_deadline)?;
        }
        if self.head.next_deadline().is_some_and(|at| at <= now) {
            self.deadline()?;
        }
        Ok(())
    }

    fn at_front(
        &mut self,
        step: impl FnOnce(&mut Front, &mut front::Cx<'_>) -> Verdict,
    ) -> Result<(), Violation> {
        let (world, now) = (self.clock.world, self.clock.head());
        let mut cx = front::Cx { world, now, kernel: &mut self.kernel, trace: &mut self.trace };
        step(&mut self.front, &mut cx).map_err(|broken| Violation {
            checker: broken.rule,
            what: broken.what,
            at: now,
        })
    }

    /// Front and guard are one process: they stand still together.
    fn serve(&mut self, item: FrontItem) -> Result<(), Violation> {
        if let Some(until) = self.frozen_until {
            self.kernel.agenda.plan(until, Item::Front(item));
            return Ok(());
        }
        self.due_first()?;
        self.steps += 1;
        self.at_front(|front, cx| front.happen(cx, item))
    }

    fn happen(&mut self, item: Item) -> Result<(), Violation> {
        match item {
            Item::Strike(index) => self.strike(self.strikes[index]),
            Item::Heal => self.heal(),
            Item::Thaw => self.thaw(),
            Item::Front(item) => self.serve(item),
            Item::Say(_)
            | Item::Born(_)
            | Item::Tick(_)
            | Item::MainEnds(..)
            | Item::TreeEnds(_)
            | Item::OrphansEnd(_)
            | Item::SayExited(_)
            | Item::SayEmptied(_)
            | Item::Measure { .. }
            | Item::Answer { .. } => match self.kernel.happen(self.clock.world, item) {
                Some(event) => self.deliver(event),
                None => Ok(()),
            },
        }
    }

    fn strike(&mut self, strike: Strike) -> Result<(), Violation> {
        let service = ServiceId(u32::try_from(strike.service).expect("few services"));
        self.trace.note(self.clock.head(), || format!("FAULT  s{} {:?}", service.0, strike.fault));
        self.kernel.strike(self.clock.world, strike.service, strike.fault);
        match strike.fault {
            Fault::Ordered { order } => self.deliver(Event::Ordered { service, order }),
            Fault::TwoOperators { first, second } => {
                self.deliver(Event::Ordered { service, order: first })?;
                self.deliver(Event::Ordered { service, order: second })
            }
            Fault::Reload => {
                let before = &self.facts.services[strike.service].config;
                let tempo = self.tempos[strike.service];
                let build = self.kernel.hosts[strike.service].build;
                let config = draw::reconfig(&mut self.kernel.rng, before, &build, tempo);
                if self.frozen_until.is_none() && self.kernel.rng.chance(50) {
                    self.front.reconfigure(&mut self.kernel.rng);
                }
                self.deliver(Event::Configured { service, config })
            }
            Fault::ClockStep { by } => {
                self.clock.step(by);
                self.facts.disturbed = Some(self.clock.head());
                self.front.disturb(self.clock.head());
                Ok(())
            }
            Fault::Freeze { lasts } => {
                let until = self.clock.world + lasts;
                self.frozen_until = Some(until.max(self.frozen_until.unwrap_or(until)));
                self.kernel.agenda.plan(until, Item::Thaw);
                self.facts.disturbed = Some(self.clock.head() + lasts);
                self.front.disturb(self.clock.head() + lasts);
                Ok(())
            }
            Fault::Leak { .. }
            | Fault::FileLeak { .. }
            | Fault::Spike { .. }
            | Fault::Crash { .. }
            | Fault::CrashLoop { .. }
            | Fault::Hang
            | Fault::NeverBoots { .. }
            | Fault::Answer { .. }
            | Fault::Term { .. }
            | Fault::Stuck { .. }
            | Fault::Orphans { .. }
            | Fault::OddExits { .. }
            | Fault::SpawnFails { .. }
            | Fault::SpawnSlow { .. }
            | Fault::SamplesFail { .. }
            | Fault::SamplesLost { .. }
            | Fault::EvidenceLost { .. }
            | Fault::TrafficStuck { .. }
            | Fault::Stale
            | Fault::Pressure
            | Fault::Stall => Ok(()),
        }
    }

    fn heal(&mut self) -> Result<(), Violation> {
        self.trace.note(self.clock.head(), || "HEAL   all faults stop".into());
        self.kernel.heal(self.clock.world);
        self.front.heal();
        self.facts.healed = Some(self.clock.head());
        for service in self.ids() {
            if self.kernel.rng.chance(70) && self.facts.services[service.0 as usize].intent == Intent::Down {
                self.deliver(Event::Ordered { service, order: Order::Start })?;
            }
        }
        Ok(())
    }

    fn thaw(&mut self) -> Result<(), Violation> {
        if self.frozen_until.is_some_and(|until| until > self.clock.world) {
            return Ok(());
        }
        self.frozen_until = None;
        for event in std::mem::take(&mut self.backlog) {
            self.deliver(event)?;
        }
        Ok(())
    }

    /// Tells the head, unless the guard stands still. What is due goes first, as in the driver.
    fn deliver(&mut self, event: Event) -> Result<(), Violation> {
        if self.frozen_until.is_some() {
            self.backlog.push(event);
            return Ok(());
        }
        self.due_first()?;
        self.facts.take(self.clock.head(), &event);
        if let Event::Configured { service, config } = &event {
            self.kernel.hosts[service.0 as usize].config = config.clone();
            if self.kernel.has_front(*service) {
                self.front.add(self.clock.head(), *service, config.health.hang);
            }
        }
        self.head.handle(self.clock.head(), event.clone());
        self.step(Some(&event))
    }

    fn deadline(&mut self) -> Result<(), Violation> {
        self.head.handle_deadline(self.clock.head());
        self.step(None)
    }

    /// What the head decided is looked at, then done.
    fn step(&mut self, event: Option<&Event>) -> Result<(), Violation> {
        self.steps += 1;
        let now = self.clock.head();
        let actions: Vec<Action> = std::iter::from_fn(|| self.head.next_action()).collect();
        self.trace.step(now, event, &actions);
        for (view, id) in self.views.iter_mut().zip(0..) {
            if let Some(fresh) = self.head.view(now, ServiceId(id)) {
                *view = fresh;
            }
        }
        let step = Step {
            now,
            event,
            actions: &actions,
            views: &self.views,
            facts: &self.facts,
            kernel: &self.kernel,
            next_deadline: self.head.next_deadline(),
        };
        let broken = self.checkers.iter_mut().find_map(|checker| {
            checker.check(&step).err().map(|what| Violation { checker: checker.name(), what, at: now })
        });
        if let Some(violation) = broken {
            return Err(violation);
        }
        if self.dies(event) {
            return self.die(event, &actions);
        }
        for action in &actions {
            self.carry_out(action)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, action: &Action) -> Result<(), Violation> {
        if let Action::Spawn { instance } = action {
            self.facts.services[instance.service.0 as usize].next_number = instance.number + 1;
        }
        self.kernel.carry_out(self.clock.world, action);
        self.at_front(|front, cx| front.told(cx, action))
    }

    /// True once all is as wanted and has stayed so. Not in time is the one rule about what must happen.
    fn is_over(&mut self) -> Result<bool, Violation> {
        if self.steps > STEPS_MAX {
            return Err(self.violation("liveness", format!("not settled after {STEPS_MAX} steps")));
        }
        let Some(healed) = self.facts.healed else { return Ok(false) };
        let now = self.clock.head();
        let unsettled = self.ids().find_map(|id| self.unsettled(id).map(|what| (id, what)));
        let Some((id, what)) = unsettled else {
            if self.is_serving(now.since(healed))? {
                return Ok(false);
            }
            let since = *self.settled_since.get_or_insert(now);
            let nothing_to_come = self.kernel.agenda.next().is_none() && self.head.next_deadline().is_none();
            return Ok(nothing_to_come || now.since(since) >= QUIET);
        };
        self.settled_since = None;
        let bound = self.facts.services[id.0 as usize].settles_within();
        if now.since(healed) > bound {
            return Err(
                self.violation("liveness", format!("s{} after {bound:?} without faults: {what}", id.0))
            );
        }
        Ok(false)
    }

    /// What is not as wanted, if anything.
    fn unsettled(&self, id: ServiceId) -> Option<String> {
        let (view, facts) = (&self.views[id.0 as usize], &self.facts.services[id.0 as usize]);
        if view.incident.is_some() {
            return Some(format!("incident {:?} is open", view.incident));
        }
        match facts.intent {
            Intent::Down => (view.state != ServiceState::Down || !view.instances.is_empty())
                .then(|| format!("wanted down, is {:?}", view.state)),
            Intent::Up => {
                let ready = view.instances.iter().filter(|it| it.state == InstanceState::Ready && !it.relief);
                let ready = ready.count();
                (ready < usize::from(facts.config.replicas))
                    .then(|| format!("{ready} of {} are ready", facts.config.replicas))
            }
        }
    }

    /// Whether requests are still open; not for ever.
    fn is_serving(&self, after: Duration) -> Result<bool, Violation> {
        let open = self.front.open();
        let settles = self.facts.services.iter().map(ServiceFacts::settles_within).max().unwrap_or_default();
        let bound = settles + self.front.config().hold_wait + front::ANSWER_MAX * 4;
        if open > 0 && after > bound {
            return Err(self.violation("liveness", format!("{open} requests are open after {bound:?}")));
        }
        Ok(open > 0)
    }

    fn violation(&self, checker: &'static str, what: String) -> Violation {
        Violation { checker, what, at: self.clock.head() }
    }

    fn ids(&self) -> impl Iterator<Item = ServiceId> + use<> {
        (0..u32::try_from(self.tempos.len()).expect("few services")).map(ServiceId)
    }
}
