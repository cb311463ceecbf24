//! The fake kernel and driver: carries out what the head wants, as well as the present faults let it, and says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use plimsoll_core::units::{Bytes, Instant};
use plimsoll_core::{
    Action, Event, Exit, Found, InstanceId, Notice, OomDelta, ProbeOutcome, Remains, Sample, ServiceConfig,
    ServiceId,
};

use crate::clock::Agenda;
use crate::draw::Build;
use crate::faults::{Answers, Fault};
use crate::front::FrontItem;
use crate::mood::Mood;
use crate::process::{Files, Leak, Memory, Process, Spike};
use crate::rng::Rng;

const KILLED: Exit = Exit::Signal(9);
const TICK_NEAR: Duration = Duration::from_millis(20);
const TICK_FAR: Duration = Duration::from_millis(200);
/// So many instances that are gone are remembered, to send late news of.
const GONE_MAX: usize = 16;

/// What the world has yet to do.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Say(Event),
    Born(InstanceId),
    /// Look at memory: wall, and marks.
    Tick(InstanceId),
    MainEnds(InstanceId, Exit),
    TreeEnds(InstanceId),
    OrphansEnd(InstanceId),
    SayExited(InstanceId),
    SayEmptied(InstanceId),
    Measure {
        instance: InstanceId,
        descriptors: bool,
    },
    Answer {
        instance: InstanceId,
        outcome: ProbeOutcome,
    },
    /// For the front.
    Front(FrontItem),
    /// For the world: a fault by its place in the plan, and the two ends of trouble.
    Strike(usize),
    Heal,
    Thaw,
}

/// Whether a request that comes to an instance is heard there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ear {
    /// Nobody listens: the connection is refused.
    None,
    /// It is taken, and nothing is done with it.
    Deaf,
    /// It is carried out, and the answer comes too late for anybody.
    Slow,
    Open,
}

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) config: ServiceConfig,
    pub(crate) build: Build,
    pub(crate) mood: Mood,
}

#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) agenda: Agenda<Item>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) rng: Rng,
    processes: BTreeMap<InstanceId, Process>,
    /// Asked for, and not yet born.
    unborn: BTreeSet<InstanceId>,
    gone: VecDeque<InstanceId>,
}

impl Kernel {
    pub(crate) fn new(hosts: Vec<Host>, rng: Rng) -> Self {
        Self {
            agenda: Agenda::new(),
            hosts,
            rng,
            processes: BTreeMap::new(),
            unborn: BTreeSet::new(),
            gone: VecDeque::new(),
        }
    }

    /// Whether any process of this instance lives: the truth, whatever was said about it.
    pub(crate) fn is_alive(&self, id: InstanceId) -> bool {
        self.processes.get(&id).is_some_and(Process::is_alive)
    }

    /// Alive, or about to be.
    pub(crate) fn may_live(&self, id: InstanceId) -> bool {
        self.is_alive(id) || self.unborn.contains(&id)
    }

    pub(crate) fn living(&self) -> impl Iterator<Item = InstanceId> + '_ {
        self.processes.iter().filter(|(_, process)| process.is_alive()).map(|(id, _)| *id)
    }

    pub(crate) fn carry_out(&mut self, now: Instant, action: &Action) {
        match *action {
            Action::Spawn { instance } => self.spawn(now, instance),
            Action::Sample { instance, descriptors } => self.sample(now, instance, descriptors),
            Action::Probe { instance, timeout, patience } => self.probe(now, instance, timeout, patience),
            Action::KeepEvidence { instance, budget, .. } => {
                if self.host(instance).mood.evidence_lost.at(now).is_none() {
                    let most = u64::try_from(budget.as_millis()).unwrap_or(u64::MAX);
                    self.plan(now, 1, most, Item::Say(Event::EvidenceKept { instance }));
                }
            }
            Action::Signal { instance } => self.signal(now, instance),
            Action::KillTree { instance } => self.kill(now, instance),
            Action::SetHigh { instance, at } => {
                if let Some(process) = self.processes.get_mut(&instance) {
                    process.high = at;
                    process.was_high = false;
                    self.tick_soon(now, instance);
                }
            }
            Action::Release { instance } => {
                self.processes.remove(&instance);
                if self.gone.len() == GONE_MAX {
                    self.gone.pop_front();
                }
                self.gone.push_back(instance);
            }
            Action::Admit { .. } | Action::Withdraw { .. } | Action::Stand { .. } | Action::Tell(_) => {}
        }
    }

    /// Makes a planned thing happen. What comes of it for the head is the answer.
    pub(crate) fn happen(&mut self, now: Instant, item: Item) -> Option<Event> {
        match item {
            Item::Say(event) => return Some(event),
            Item::Born(instance) => self.born(now, instance),
            Item::Tick(instance) => return self.tick(now, instance),
            Item::MainEnds(instance, exit) => self.main_ends(now, instance, exit),
            Item::TreeEnds(instance) => self.tree_ends(now, instance),
            Item::OrphansEnd(instance) => self.orphans_end(now, instance),
            Item::SayExited(instance) => return Some(self.exited(instance)),
            Item::SayEmptied(instance) => {
                return (!self.is_alive(instance)).then_some(Event::Emptied { instance });
            }
            Item::Measure { instance, descriptors } => return Some(self.measure(now, instance, descriptors)),
            Item::Answer { instance, outcome } => {
                let lives = self.processes.get(&instance).is_some_and(|it| it.main_lives);
                let outcome = if lives { outcome } else { ProbeOutcome::Refused };
                return Some(Event::Probed { instance, outcome });
            }
            Item::Front(_) | Item::Strike(_) | Item::Heal | Item::Thaw => {}
        }
        None
    }

    /// What init still holds of a service for the next guard.
    pub(crate) fn found(&self, service: ServiceId) -> Vec<Found> {
        let remains = |process: &Process| {
            if process.main_lives {
                Remains::Main
            } else if process.is_alive() {
                Remains::Others
            } else {
                Remains::Nothing
            }
        };
        let held = self.processes.iter().map(|(id, process)| (*id, remains(process)));
        let unborn = self.unborn.iter().map(|id| (*id, Remains::Main));
        let all = held.chain(unborn).filter(|(id, _)| id.service == service);
        all.map(|(id, remains)| Found { number: id.number, remains }).collect()
    }

    /// The guard is gone, with all that it had under way and all that was on its way to it.
    pub(crate) fn guard_died(&mut self) {
        self.agenda.retain(|item| match item {
            Item::Say(event) => matches!(event, Event::Ordered { .. } | Event::Configured { .. }),
            Item::SayExited(_) | Item::SayEmptied(_) | Item::Measure { .. } | Item::Answer { .. } => false,
            // Clients who are yet to come.
            Item::Front(item) => matches!(item, FrontItem::Arrive(_)),
            Item::Born(_)
            | Item::Tick(_)
            | Item::MainEnds(..)
            | Item::TreeEnds(_)
            | Item::OrphansEnd(_)
            | Item::Strike(_)
            | Item::Heal
            | Item::Thaw => true,
        });
    }

    /// Something of it is there to be found.
    pub(crate) fn holds(&self, id: InstanceId) -> bool {
        self.processes.contains_key(&id) || self.unborn.contains(&id)
    }

    pub(crate) fn has_main(&self, id: InstanceId) -> bool {
        self.processes.get(&id).is_some_and(|it| it.main_lives)
    }

    /// How the main process of an instance ended, once more.
    pub(crate) fn exit_of(&self, instance: InstanceId) -> Event {
        self.exited(instance)
    }

    /// What of a fault strikes the processes that live now.
    pub(crate) fn strike(&mut self, now: Instant, service: usize, fault: Fault) {
        self.hosts[service].mood.take(now, fault);
        for id in self.of_service(service) {
            self.strike_process(now, id, fault);
        }
        if fault == Fault::Stale {
            self.say_stale(now);
        }
    }

    /// The end of all faults; what they left behind stays.
    pub(crate) fn heal(&mut self, now: Instant) {
        for host in &mut self.hosts {
            host.mood = Mood::default();
        }
        for (id, process) in &mut self.processes {
            process.memory.stop_leak(now);
            process.memory.stop_spike();
            process.files.stop_leak(now);
            process.stuck_until = now;
            let config = &self.hosts[id.service.0 as usize].config;
            // Without probes nobody can know of a hang, so nobody can end it.
            process.hung &= config.health.probed;
        }
    }

    fn strike_process(&mut self, now: Instant, id: InstanceId, fault: Fault) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        match fault {
            Fault::Leak { bytes_per_second, shape, .. } => {
                process.memory.start_leak(Leak { since: now, bytes_per_second, shape });
                self.tick_soon(now, id);
            }
            Fault::FileLeak { per_second, .. } => process.files.start_leak(now, per_second),
            Fault::Spike { height, period, lasts } => {
                process.memory.start_spike(Spike { from: now, until: now + lasts, height, period });
                self.tick_soon(now, id);
            }
            Fault::Crash { exit } => self.main_ends(now, id, exit),
            Fault::CrashLoop { life, exit, .. } => {
                self.agenda.plan(now + life, Item::MainEnds(id, exit));
            }
            Fault::Hang => process.hung = true,
            Fault::Stuck { lasts } => process.stuck_until = now + lasts,
            Fault::Term { takes, .. } => process.manner.term = takes,
            Fault::Orphans { stay, .. } => {
                process.manner.orphans_stay = stay;
                if process.main_lives {
                    process.children = process.children.max(1);
                }
            }
            Fault::OddExits { doubled, unseen, latency, .. } => {
                process.manner.exit_doubled = doubled;
                process.manner.exit_unseen = unseen;
                process.manner.exit_latency = latency;
            }
            Fault::Pressure => {
                self.plan(now, 0, 5, Item::Say(Event::Noticed { instance: id, notice: Notice::Pressure }));
            }
            Fault::Stall => self.plan(now, 0, 5, Item::Say(Event::Stalled { instance: id })),
            Fault::NeverBoots { .. }
            | Fault::Answer { .. }
            | Fault::SpawnFails { .. }
            | Fault::SpawnSlow { .. }
            | Fault::SamplesFail { .. }
            | Fault::SamplesLost { .. }
            | Fault::EvidenceLost { .. }
            | Fault::TrafficStuck { .. }
            | Fault::Ordered { .. }
            | Fault::TwoOperators { .. }
            | Fault::Reload
            | Fault::ClockStep { .. }
            | Fault::Freeze { .. }
            | Fault::Stale => {}
        }
    }

    fn say_stale(&mut self, now: Instant) {
        let Some(instance) = self.gone.back().copied() else { return };
        let sample = Sample { working_set: Bytes::mib(1 << 20), ..Sample::default() };
        let took = Duration::from_millis(1);
        let events = [
            Event::Spawned { instance },
            Event::Exited { instance, exit: KILLED, oom: OomDelta { kills: 1 }, tree_empty: false },
            Event::Emptied { instance },
            Event::Sampled { instance, sample },
            Event::Probed { instance, outcome: ProbeOutcome::Passed { took } },
            Event::EvidenceKept { instance },
            Event::Stalled { instance },
            Event::Noticed { instance, notice: Notice::OomKill },
        ];
        for event in events {
            self.plan(now, 0, 300, Item::Say(event));
        }
    }

    fn spawn(&mut self, now: Instant, instance: InstanceId) {
        let mood = self.host(instance).mood;
        if let Some(failure) = mood.spawn_fails.at(now) {
            self.plan(now, 0, 20, Item::Say(Event::SpawnFailed { instance, failure }));
            return;
        }
        let takes = mood.spawn_slow.at(now).unwrap_or(self.rng.latency(1, 20));
        self.unborn.insert(instance);
        self.agenda.plan(now + takes, Item::Born(instance));
    }

    fn born(&mut self, now: Instant, id: InstanceId) {
        self.unborn.remove(&id);
        let Host { config, build, mood } = &self.hosts[id.service.0 as usize];
        let manner = mood.manner(now, build, &mut self.rng);
        let mut memory = Memory::new(build.base.scaled(self.rng.between(96, 100), 100), build.cache);
        let mut files = Files::new(build.files);
        if let Some((bytes_per_second, shape)) = mood.leak.at(now) {
            memory.start_leak(Leak { since: now, bytes_per_second, shape });
        }
        if let Some(per_second) = mood.file_leak.at(now) {
            files.start_leak(now, per_second);
        }
        let process = Process::new(manner, now, memory, files, config.memory.recycle);
        self.processes.insert(id, process);
        self.plan(now, 0, 1, Item::Say(Event::Spawned { instance: id }));
        if let Some(life) = manner.dies_after {
            self.agenda.plan(now + life, Item::MainEnds(id, manner.exit));
        }
        self.tick_soon(now, id);
    }

    fn sample(&mut self, now: Instant, instance: InstanceId, descriptors: bool) {
        let mood = self.host(instance).mood;
        if mood.samples_lost.at(now).is_some() {
            return;
        }
        if mood.samples_fail.at(now).is_some() {
            self.plan(now, 1, 50, Item::Say(Event::SampleFailed { instance }));
            return;
        }
        self.plan(now, 0, 4, Item::Measure { instance, descriptors });
    }

    fn measure(&self, now: Instant, instance: InstanceId, descriptors: bool) -> Event {
        let Some(process) = self.processes.get(&instance).filter(|it| it.is_alive()) else {
            return Event::SampleFailed { instance };
        };
        let config = &self.host(instance).config;
        let working_set = process.memory.level(now).min(config.memory.hard);
        let limit = config.descriptors.limit;
        let sample = Sample {
            working_set,
            charged: (working_set + process.memory.cache).min(config.memory.hard),
            descriptors: descriptors.then(|| process.files.count(now, limit)),
        };
        Event::Sampled { instance, sample }
    }

    fn probe(&mut self, now: Instant, instance: InstanceId, timeout: Duration, patience: Duration) {
        let quick = self.rng.latency(1, 15);
        let Some(process) = self.processes.get(&instance) else { return };
        let mood = self.host(instance).mood.answers.at(now);
        let lies = process.hung && matches!(mood, Some(Answers::Slow(_)));
        let takes = match mood {
            _ if !process.has_booted(now) => None,
            Some(Answers::Lost) => return,
            Some(Answers::Refuses) => None,
            Some(Answers::Hangs) => Some(Duration::MAX),
            Some(Answers::Flaps(turn)) => {
                let turns = now.0 / u64::try_from(turn.as_nanos()).unwrap_or(u64::MAX).max(1);
                turns.is_multiple_of(2).then_some(quick)
            }
            _ if (process.hung && !lies) || process.is_stuck(now) => Some(Duration::MAX),
            Some(Answers::Slow(takes)) => Some(takes),
            None => Some(quick),
        };
        let (after, outcome) = match takes {
            None => (quick, ProbeOutcome::Refused),
            Some(took) if took <= timeout => (took, ProbeOutcome::Passed { took }),
            Some(took) if took < patience => (took, ProbeOutcome::Late { took }),
            Some(_) => (patience, ProbeOutcome::Unanswered),
        };
        self.agenda.plan(now + after, Item::Answer { instance, outcome });
    }

    fn signal(&mut self, now: Instant, instance: InstanceId) {
        let mood = self.host(instance).mood.term.at(now);
        let Some(process) = self.processes.get(&instance) else { return };
        let takes = mood.unwrap_or(process.manner.term);
        if let Some(takes) = takes {
            self.agenda.plan(now + takes, Item::MainEnds(instance, Exit::Signal(15)));
        }
    }

    fn kill(&mut self, now: Instant, instance: InstanceId) {
        let Some(process) = self.processes.get(&instance) else { return };
        if !process.is_alive() {
            self.plan(now, 0, 5, Item::SayEmptied(instance));
        } else if process.is_stuck(now) {
            // Either the kernel remembers the signal, or (a frozen group) it has to be sent again.
            if self.rng.chance(50) {
                let until = process.stuck_until;
                self.agenda.plan(until, Item::TreeEnds(instance));
            }
        } else {
            self.plan(now, 0, 8, Item::TreeEnds(instance));
        }
    }

    fn tree_ends(&mut self, now: Instant, id: InstanceId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.is_stuck(now) || !process.is_alive() {
            return;
        }
        process.children = 0;
        if process.main_lives {
            self.main_ends(now, id, KILLED);
        } else {
            self.plan(now, 0, 5, Item::SayEmptied(id));
        }
    }

    fn main_ends(&mut self, now: Instant, id: InstanceId, exit: Exit) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if !process.main_lives || process.is_stuck(now) {
            return;
        }
        process.main_lives = false;
        process.exit = Some(exit);
        let manner = process.manner;
        let orphans = process.children > 0;
        if self.has_front(id.service) {
            self.plan(now, 0, 2, Item::Front(FrontItem::Cut(id)));
        }
        // An end that nobody saw must at least empty the group some day, or nobody could ever know of it.
        let unseen = manner.exit_unseen && !(orphans && manner.orphans_stay.is_none());
        if !unseen {
            self.agenda.plan(now + manner.exit_latency, Item::SayExited(id));
            if manner.exit_doubled {
                self.plan(now + manner.exit_latency, 0, 300, Item::SayExited(id));
            }
        }
        match manner.orphans_stay {
            Some(stay) if orphans => self.agenda.plan(now + stay, Item::OrphansEnd(id)),
            // With every process gone both are told, as a rule; the order is the driver's luck.
            _ if !orphans && (unseen || self.rng.chance(40)) => {
                self.plan(now, 0, 10, Item::SayEmptied(id));
            }
            _ => {}
        }
    }

    fn orphans_end(&mut self, now: Instant, id: InstanceId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if process.children > 0 && !process.is_stuck(now) {
            process.children = 0;
            if !process.is_alive() {
                self.plan(now, 0, 5, Item::SayEmptied(id));
            }
        }
    }

    fn exited(&self, instance: InstanceId) -> Event {
        let process = self.processes.get(&instance);
        let kills = process.map_or(0, |it| it.oom_kills);
        let exit = process.and_then(|it| it.exit).unwrap_or(Exit::Unknown);
        let tree_empty = !self.is_alive(instance);
        Event::Exited { instance, exit, oom: OomDelta { kills }, tree_empty }
    }

    /// The kernel's own look at an instance's memory.
    fn tick(&mut self, now: Instant, id: InstanceId) -> Option<Event> {
        let memory = self.host(id).config.memory;
        let process = self.processes.get_mut(&id)?;
        process.ticking = false;
        if !process.is_alive() {
            return None;
        }
        let level = process.memory.level(now);
        if level >= memory.hard && !process.is_stuck(now) {
            return self.out_of_memory(now, id, memory.group_kill);
        }
        let is_high = level + process.memory.cache >= process.high;
        let crossed = is_high && !std::mem::replace(&mut process.was_high, is_high);
        if process.memory.moves(now) {
            process.ticking = true;
            let pace = if level >= memory.recycle.scaled(1, 2) { TICK_NEAR } else { TICK_FAR };
            self.agenda.plan(now + pace, Item::Tick(id));
        }
        (crossed && memory.kernel_wakes_us)
            .then_some(Event::Noticed { instance: id, notice: Notice::TripWire })
    }

    fn out_of_memory(&mut self, now: Instant, id: InstanceId, group: bool) -> Option<Event> {
        let process = self.processes.get_mut(&id)?;
        process.oom_kills += if group { 2 } else { 1 };
        if group {
            process.children = 0;
            self.main_ends(now, id, KILLED);
        } else if process.children > 0 && self.rng.chance(50) {
            let process = self.processes.get_mut(&id)?;
            process.children -= 1;
            process.memory.drop_to_base(now);
            self.tick_soon(now, id);
        } else {
            process.memory.drop_to_base(now);
            self.main_ends(now, id, KILLED);
        }
        Some(Event::Noticed { instance: id, notice: Notice::OomKill })
    }

    fn tick_soon(&mut self, now: Instant, id: InstanceId) {
        if let Some(process) = self.processes.get_mut(&id)
            && !std::mem::replace(&mut process.ticking, true)
        {
            self.agenda.plan(now + Duration::from_millis(1), Item::Tick(id));
        }
    }

    pub(crate) fn has_front(&self, service: ServiceId) -> bool {
        self.hosts[service.0 as usize].build.has_front
    }

    pub(crate) fn ear(&self, now: Instant, id: InstanceId) -> Ear {
        let Some(process) = self.processes.get(&id).filter(|it| it.has_booted(now)) else { return Ear::None };
        if process.hung || process.is_stuck(now) {
            Ear::Deaf
        } else if self.host(id).mood.traffic_stuck.at(now).is_some() {
            Ear::Slow
        } else {
            Ear::Open
        }
    }

    /// A request was too much for it.
    pub(crate) fn crash(&mut self, now: Instant, id: InstanceId) {
        self.main_ends(now, id, Exit::Signal(11));
    }

    fn of_service(&self, service: usize) -> Vec<InstanceId> {
        self.processes.keys().copied().filter(|id| id.service.0 as usize == service).collect()
    }

    fn host(&self, id: InstanceId) -> &Host {
        &self.hosts[id.service.0 as usize]
    }

    fn plan(&mut self, now: Instant, low_millis: u64, high_millis: u64, item: Item) {
        let after = self.rng.latency(low_millis, high_millis.max(low_millis));
        self.agenda.plan(now + after, item);
    }
}
