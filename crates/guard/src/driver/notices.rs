//! What the kernel tells us between two samples: marks crossed, kills for want of memory, stalls. One epoll instance
//! watches for all instances, so that a thousand of them need no task each.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use plimsoll_core::layers::hard_wall;
use plimsoll_core::{Event, InstanceId, Notice};
use plimsoll_kernel::Roots;
use plimsoll_kernel::cgroup::{Group, Version};
use plimsoll_kernel::notify::{self, GroupEvents};
use plimsoll_kernel::psi::{Stalled, Trigger};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Driver, Report};
use crate::workload::Workload;

/// Events taken from the kernel in one go.
const BATCH: usize = 64;
/// Stalled for this part of a window: look at once.
const PRESSURE_STALL: Duration = Duration::from_millis(100);
const PRESSURE_WINDOW: Duration = Duration::from_secs(1);
/// Without privileges the kernel takes only windows of two seconds, and on old kernels none.
const PRESSURE_WINDOW_UNPRIVILEGED: Duration = Duration::from_secs(2);
/// Instances that get their v1 marks at the same time; others wait, so that killing and evidence never wait for it.
const MARKING_MAX: usize = 2;
/// The key of the one inotify instance.
const GROUP_EVENTS: u64 = 0;
/// The key of the whole host's pressure; instances' own keys start above it.
const HOST_PRESSURE: u64 = 1;

/// What is watched for one instance. Dropping it ends the watching.
#[derive(Debug)]
pub(super) struct Watch {
    group: Option<notify::Watch>,
    sources: Vec<(u64, Source)>,
}

#[derive(Debug)]
pub(super) enum Source {
    /// v1: memory crossed a mark, upwards or downwards.
    Mark(notify::Signal),
    /// v1: the wall was met, and the kernel is about to kill.
    Wall(notify::Signal),
    /// v2: processes stall for memory.
    Pressure(Trigger),
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Mark,
    Wall,
    Pressure,
}

#[derive(Debug)]
pub(super) struct Watcher {
    epoll: AsyncFd<OwnedFd>,
    group_events: Option<GroupEvents>,
    /// Held for as long as it is to fire.
    _host_pressure: Option<Trigger>,
    groups: HashMap<notify::Watch, InstanceId>,
    targets: HashMap<u64, (InstanceId, Kind)>,
    next_key: u64,
    /// v1: instances that wait for their marks, and how many are getting them.
    unmarked: VecDeque<InstanceId>,
    marking: usize,
}

impl Watcher {
    pub(super) fn new(roots: &Roots) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let group_events = GroupEvents::new().ok();
        if let Some(events) = &group_events {
            add(&epoll, events, GROUP_EVENTS, epoll::EventFlags::IN)?;
        }
        let host_pressure = host_pressure(roots);
        if let Some(trigger) = &host_pressure {
            add(&epoll, trigger, HOST_PRESSURE, epoll::EventFlags::PRI | epoll::EventFlags::ET)?;
        }
        #[expect(
            deprecated,
            reason = "its successor is unsafe for the sake of types that lie about their descriptor"
        )]
        let epoll = AsyncFd::with_interest(epoll, Interest::READABLE)?;
        Ok(Self {
            epoll,
            group_events,
            _host_pressure: host_pressure,
            groups: HashMap::new(),
            targets: HashMap::new(),
            next_key: HOST_PRESSURE + 1,
            unmarked: VecDeque::new(),
            marking: 0,
        })
    }

    pub(super) async fn ready(&mut self) {
        match self.epoll.readable().await {
            Ok(mut guard) => guard.clear_ready(),
            // Only when the runtime is going down.
            Err(_) => std::future::pending().await,
        }
    }

    fn watch_v2(&mut self, watch: &mut Watch, instance: InstanceId, group: &Group) -> Result<(), String> {
        let events = self.group_events.as_ref().ok_or("no inotify instance could be had")?;
        let key = events.add(group).map_err(|error| error.to_string())?;
        self.groups.insert(key, instance);
        watch.group = Some(key);
        // Pressure is a bonus: old kernels and psi=0 have none, and `check` says so.
        if let Some(path) = group.pressure_file()
            && let Ok(trigger) = Trigger::new(&path, Stalled::Some, PRESSURE_STALL, PRESSURE_WINDOW)
        {
            self.source(watch, instance, Source::Pressure(trigger)).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn source(&mut self, watch: &mut Watch, instance: InstanceId, source: Source) -> io::Result<()> {
        let key = self.next_key;
        self.next_key += 1;
        let (kind, flags) = match &source {
            Source::Mark(_) => (Kind::Mark, epoll::EventFlags::IN | epoll::EventFlags::ET),
            Source::Wall(_) => (Kind::Wall, epoll::EventFlags::IN | epoll::EventFlags::ET),
            Source::Pressure(_) => (Kind::Pressure, epoll::EventFlags::PRI | epoll::EventFlags::ET),
        };
        match &source {
            Source::Mark(signal) | Source::Wall(signal) => add(self.epoll.get_ref(), signal, key, flags)?,
            Source::Pressure(trigger) => add(self.epoll.get_ref(), trigger, key, flags)?,
        }
        self.targets.insert(key, (instance, kind));
        watch.sources.push((key, source));
        Ok(())
    }

    pub(super) fn remove(&mut self, watch: &Watch) {
        if let (Some(key), Some(events)) = (watch.group, &self.group_events) {
            self.groups.remove(&key);
            // The group may be gone already, and its watch with it.
            let _ = events.remove(key);
        }
        // The descriptors leave the epoll set when they are closed, which dropping them does.
        for (key, _) in &watch.sources {
            self.targets.remove(key);
        }
    }

    /// Everything that has been noticed. Nothing is lost to a full batch: the rest keeps the epoll readable.
    fn drain(&self, everybody: impl Fn() -> Vec<InstanceId>) -> Vec<(InstanceId, Kind)> {
        let mut noticed = Vec::new();
        let zero = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        loop {
            let mut batch = Vec::with_capacity(BATCH);
            let count =
                epoll::wait(self.epoll.get_ref(), spare_capacity(&mut batch), Some(&zero)).unwrap_or(0);
            for event in &batch {
                // Packed by the kernel's layout, hence by value.
                let key = event.data.u64();
                match self.targets.get(&key) {
                    Some(target) => noticed.push(*target),
                    None if key == GROUP_EVENTS => noticed.extend(self.moved_groups()),
                    None if key == HOST_PRESSURE => {
                        noticed.extend(everybody().into_iter().map(|instance| (instance, Kind::Pressure)));
                    }
                    None => {}
                }
            }
            if count < BATCH {
                return noticed;
            }
        }
    }

    fn moved_groups(&self) -> Vec<(InstanceId, Kind)> {
        let Some(drained) = self.group_events.as_ref().and_then(|events| events.drain().ok()) else {
            return Vec::new();
        };
        if drained.lost {
            return self.groups.values().map(|instance| (*instance, Kind::Mark)).collect();
        }
        let known = drained.moved.iter().filter_map(|key| self.groups.get(key));
        known.map(|instance| (*instance, Kind::Mark)).collect()
    }
}

/// Fires when anybody on the host stalls for memory: then every instance is looked at.
pub(crate) fn host_pressure(roots: &Roots) -> Option<Trigger> {
    let path = roots.proc.join("pressure/memory");
    let trigger = |window| Trigger::new(&path, Stalled::Some, PRESSURE_STALL, window).ok();
    trigger(PRESSURE_WINDOW).or_else(|| trigger(PRESSURE_WINDOW_UNPRIVILEGED))
}

/// Everything that v1 can speak up about, as far as it could be had.
fn mark(group: &Group, workload: &Workload) -> (Vec<Source>, Option<String>) {
    let memory = &workload.head.memory;
    let marks = [memory.recycle, hard_wall::near(memory)]
        .map(|mark| notify::Signal::at_usage(group, mark.0).map(Source::Mark));
    let wall = notify::Signal::on_oom(group).map(Source::Wall);
    let (mut sources, mut problem) = (Vec::new(), None);
    for source in marks.into_iter().chain([wall]) {
        match source {
            Ok(source) => sources.push(source),
            Err(error) => problem = Some(error.to_string()),
        }
    }
    (sources, problem)
}

fn add(epoll: &OwnedFd, source: &impl AsFd, key: u64, flags: epoll::EventFlags) -> io::Result<()> {
    Ok(epoll::add(epoll, source, epoll::EventData::new_u64(key), flags)?)
}

impl Driver {
    /// Has the kernel speak up for an instance. What cannot be had of it is said, and the rest is watched all the same.
    pub(super) fn watch(&mut self, instance: InstanceId) {
        let Some(group) = self.instances.get(&instance).and_then(|it| it.group.clone()) else { return };
        match group.version() {
            Version::V2 => {
                let mut watch = Watch { group: None, sources: Vec::new() };
                let problem = self.watcher.watch_v2(&mut watch, instance, &group).err();
                self.keep_watch(instance, watch, problem);
            }
            Version::V1 => {
                self.watcher.unmarked.push_back(instance);
                self.mark_next();
            }
        }
    }

    /// v1: each mark costs an RCU grace period, 10 ms and more, in which the driver would be blind for everybody.
    fn mark_next(&mut self) {
        while self.watcher.marking < MARKING_MAX {
            let Some(instance) = self.watcher.unmarked.pop_front() else { return };
            let group = self.instances.get(&instance).and_then(|it| it.group.clone());
            let workload = self.seat_of(instance.service).map(|seat| Arc::clone(&seat.workload));
            let Some((group, workload)) = group.zip(workload) else { continue };
            self.watcher.marking += 1;
            self.beside(move || {
                let (sources, problem) = mark(&group, &workload);
                Report::Marked { instance, sources, problem }
            });
        }
    }

    pub(super) fn marked(&mut self, instance: InstanceId, sources: Vec<Source>, problem: Option<String>) {
        self.watcher.marking -= 1;
        self.mark_next();
        if self.instances.get(&instance).is_none_or(|it| it.exit.is_some()) {
            return;
        }
        let mut watch = Watch { group: None, sources: Vec::new() };
        let added = sources.into_iter().try_for_each(|it| self.watcher.source(&mut watch, instance, it));
        self.keep_watch(instance, watch, problem.or(added.err().map(|error| error.to_string())));
        // What was crossed before the mark was there is not told any more.
        self.tell_head(Event::Noticed { instance, notice: Notice::Pressure });
    }

    fn keep_watch(&mut self, instance: InstanceId, watch: Watch, problem: Option<String>) {
        if let Some(running) = self.instances.get_mut(&instance) {
            running.watch = Some(watch);
        }
        if let Some(problem) = problem {
            let message = format!("the kernel will not speak up for it, samples alone guard it: {problem}");
            self.warn(instance, "degraded", &message);
        }
    }

    pub(super) fn take_notices(&mut self) {
        let noticed = self.watcher.drain(|| self.instances.keys().copied().collect());
        for (instance, kind) in noticed {
            let notice = match kind {
                Kind::Pressure => Some(Notice::Pressure),
                Kind::Mark => self.what_moved(instance),
                Kind::Wall => self.suspect_kill(instance),
            };
            if let Some(notice) = notice {
                self.tell_head(Event::Noticed { instance, notice });
            }
        }
    }

    /// v1 speaks up before it has chosen whom to kill: the counts are looked at again with the samples that follow.
    fn suspect_kill(&mut self, instance: InstanceId) -> Option<Notice> {
        self.instances.get_mut(&instance)?.kill_suspected = true;
        Some(Notice::TripWire)
    }

    /// Looks whether the suspected kill has happened. Where the kernel takes one process only and the service wants all
    /// or nothing, the rest is ended by us.
    pub(super) fn check_suspected_kill(&mut self, instance: InstanceId) {
        let suspected = self.instances.get(&instance).is_some_and(|it| it.kill_suspected);
        if !suspected || self.what_moved(instance) != Some(Notice::OomKill) {
            return;
        }
        if let Some(running) = self.instances.get_mut(&instance) {
            running.kill_suspected = false;
        }
        self.tell_head(Event::Noticed { instance, notice: Notice::OomKill });
        let wants_all = self.seat_of(instance.service).is_some_and(|it| it.workload.head.memory.group_kill);
        let kernel_does = self.ground.hierarchy.as_ref().is_some_and(|it| it.facts().group_kill);
        if wants_all && !kernel_does {
            self.kill_tree(instance);
        }
    }

    /// Which count moved. On v1 a crossing says nothing more than that it was one.
    fn what_moved(&mut self, instance: InstanceId) -> Option<Notice> {
        let running = self.instances.get_mut(&instance)?;
        let group = running.group.as_ref()?;
        let counts = group.oom().ok()?;
        let before = std::mem::replace(&mut running.oom_seen, counts);
        let since = counts.since(&before);
        if since.oom_kill > 0 {
            return Some(Notice::OomKill);
        }
        (group.version() == Version::V1 || since.high > 0).then_some(Notice::TripWire)
    }
}
