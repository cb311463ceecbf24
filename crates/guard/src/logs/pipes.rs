//! The thread that reads: one buffer and one epoll for the pipes of all instances, one read for each that is ready, so
//! that none can starve the others.

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::LogBounds;
use super::bucket::{Bucket, Rate};
use super::line::{self, Gap, Stamp};
use super::outbox::{Item, Outbox, SeriesId};
use super::pump::{Command, Commands, Counters};
use super::splitter::{CUT_MARK, Piece, Splitter};

/// What a pipe holds by default, so that one read empties it.
const BUFFER_BYTES: usize = 64 << 10;
const EVENTS_MAX: usize = 64;
/// A gap that nothing follows is told this long after it began.
const TELL_GAP_AFTER: Duration = Duration::from_secs(1);
/// For a flush and at the end, a pipe is read at most so many times: somebody may be filling it all the while.
const READS_MAX: usize = 16;
/// At the end, the shelf is waited for.
const SHELF_WAIT: Duration = Duration::from_secs(5);
/// The epoll token of the commands; pipes have their place in the list.
const WAKE: u64 = u64::MAX;

/// One instance's output.
struct Pipe {
    output: OwnedFd,
    service: SeriesId,
    instance: Box<str>,
    splitter: Splitter,
}

struct Service {
    name: Arc<str>,
    bounds: LogBounds,
    bucket: Bucket,
    pipes: u32,
    lost: Option<Box<Lost>>,
}

/// A gap that has not been told yet.
struct Lost {
    gap: Gap,
    why: Why,
    instance: Box<str>,
    tell_at: Instant,
}

#[derive(Clone, Copy)]
enum Why {
    OverRate,
    SlowDisk,
}

pub(super) struct Pipes {
    rate: Rate,
    epoll: OwnedFd,
    commands: Arc<Commands>,
    outbox: Arc<Outbox>,
    counters: Arc<Counters>,
    slots: Vec<Option<Pipe>>,
    free: Vec<usize>,
    services: HashMap<SeriesId, Service>,
    by_name: HashMap<Arc<str>, SeriesId>,
    next_series: SeriesId,
    /// Services with a gap to tell: few, where there may be a thousand services.
    losing: Vec<SeriesId>,
    buffer: Box<[u8]>,
    /// Lines of the read at hand, as they will lie in the file.
    lines: Vec<u8>,
    stamp: Stamp,
}

impl Pipes {
    pub(super) fn new(
        rate: Rate,
        commands: Arc<Commands>,
        outbox: Arc<Outbox>,
        counters: Arc<Counters>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, commands.wake(), epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        Ok(Self {
            rate,
            epoll,
            commands,
            outbox,
            counters,
            slots: Vec::new(),
            free: Vec::new(),
            services: HashMap::new(),
            by_name: HashMap::new(),
            next_series: 0,
            losing: Vec::new(),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            lines: Vec::new(),
            stamp: Stamp::new(),
        })
    }

    /// Reads until told to stop. A bug in here costs one round.
    pub(super) fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            let round = catch_unwind(AssertUnwindSafe(|| self.round(&mut events)));
            if let Ok(ControlFlow::Break(())) = round {
                return;
            }
        }
    }

    fn round(&mut self, events: &mut Vec<epoll::Event>) -> ControlFlow<()> {
        events.clear();
        self.losing.retain(|id| self.services.get(id).is_some_and(|service| service.lost.is_some()));
        let timeout = self.next_due().map(|due| timespec(due.saturating_duration_since(Instant::now())));
        // Interrupted, or out of kernel memory for a moment: nothing is lost, the pipes are still ready.
        let _ = epoll::wait(&self.epoll, spare_capacity(events), timeout.as_ref());
        let mut has_commands = false;
        for event in events.iter() {
            match event.data.u64() {
                WAKE => has_commands = true,
                place => _ = self.read(usize::try_from(place).unwrap_or(usize::MAX)),
            }
        }
        self.tell_due_gaps();
        if has_commands { self.obey() } else { ControlFlow::Continue(()) }
    }

    fn obey(&mut self) -> ControlFlow<()> {
        self.commands.quiet();
        while let Some(command) = self.commands.next() {
            match command {
                Command::Add { service, instance, output, bounds } => {
                    self.add(&service, instance, output, bounds);
                }
                Command::Flush { service, done } => self.flush(&service, done),
                Command::Stop(done) => {
                    self.stop(&done);
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn add(&mut self, name: &Arc<str>, instance: Box<str>, output: OwnedFd, bounds: LogBounds) {
        let service = self.service(name, bounds);
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let watched = rustix::io::ioctl_fionbio(&output, true).and_then(|()| {
            let token = epoll::EventData::new_u64(line::whole(place));
            epoll::add(&self.epoll, output.as_fd(), token, epoll::EventFlags::IN)
        });
        if let Err(error) = watched {
            self.counters.set_message(format!("output of {instance} cannot be read: {error}"));
        }
        if let Some(service) = self.services.get_mut(&service) {
            service.pipes += 1;
        }
        // Kept even unread: a pipe that nobody holds would kill who writes to it.
        if let Some(slot) = self.slots.get_mut(place) {
            *slot = Some(Pipe { output, service, instance, splitter: Splitter::default() });
        }
    }

    fn service(&mut self, name: &Arc<str>, bounds: LogBounds) -> SeriesId {
        let series = self.by_name.get(name).copied();
        let known = series.and_then(|id| Some((id, self.services.get_mut(&id)?)));
        let id = match known {
            Some((id, service)) if service.bounds == bounds => return id,
            Some((id, service)) => {
                service.bounds = bounds;
                id
            }
            None => self.begin_service(name, bounds),
        };
        self.outbox.put(Item::Open { series: id, name: Arc::clone(name), bounds });
        id
    }

    fn begin_service(&mut self, name: &Arc<str>, bounds: LogBounds) -> SeriesId {
        let id = self.next_series;
        self.next_series = self.next_series.wrapping_add(1);
        let bucket = Bucket::full(self.rate, Instant::now());
        self.services.insert(id, Service { name: Arc::clone(name), bounds, bucket, pipes: 0, lost: None });
        self.by_name.insert(Arc::clone(name), id);
        id
    }

    /// One read of one pipe. Returns whether it gave something.
    fn read(&mut self, place: usize) -> bool {
        let Some(Some(pipe)) = self.slots.get_mut(place) else { return false };
        match rustix::io::read(&pipe.output, &mut self.buffer[..]) {
            Ok(0) => {
                self.end(place);
                false
            }
            Ok(length) => {
                self.take(place, length);
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => false,
            Err(_) => {
                self.end(place);
                false
            }
        }
    }

    fn take(&mut self, place: usize, length: usize) {
        let Some(Some(pipe)) = self.slots.get_mut(place) else { return };
        let Some(service) = self.services.get_mut(&pipe.service) else { return };
        let bytes = self.buffer.get(..length).unwrap_or_default();
        let now = Instant::now();
        if !service.bucket.admit(self.rate, now, line::whole(length)) {
            let gap = pipe.splitter.drop(bytes);
            lose(service, gap, Why::OverRate, pipe, now, &mut self.losing);
            self.counters.dropped(gap);
            return;
        }
        let (skipped, bytes) = pipe.splitter.resume(bytes);
        if !skipped.is_empty() {
            lose(service, skipped, Why::OverRate, pipe, now, &mut self.losing);
            self.counters.dropped(skipped);
        }
        if bytes.is_empty() {
            return;
        }
        self.lines.clear();
        let (lines, stamp) = (&mut self.lines, self.stamp.now());
        if let Some(lost) = service.lost.take() {
            lost.append(lines, stamp, self.rate);
        }
        pipe.splitter.take(bytes, |piece| append(lines, stamp, &pipe.instance, piece));
        self.hand_over(place);
    }

    /// Gives the lines of this read to the shelf, or drops them when it is too far behind.
    fn hand_over(&mut self, place: usize) {
        let Some(Some(pipe)) = self.slots.get(place) else { return };
        if self.lines.is_empty() || self.outbox.put_lines(pipe.service, &self.lines) {
            return;
        }
        let gap = Gap::of(&self.lines);
        if let Some(service) = self.services.get_mut(&pipe.service) {
            lose(service, gap, Why::SlowDisk, pipe, Instant::now(), &mut self.losing);
        }
        self.counters.dropped(gap);
    }

    /// Everybody has closed the other end.
    fn end(&mut self, place: usize) {
        self.finish(place);
        let Some(slot) = self.slots.get_mut(place) else { return };
        let Some(pipe) = slot.take() else { return };
        self.free.push(place);
        let Some(service) = self.services.get_mut(&pipe.service) else { return };
        service.pipes -= 1;
        if service.pipes == 0 {
            self.end_service(pipe.service);
        }
    }

    /// The last words of an instance, which are perhaps no whole line.
    fn finish(&mut self, place: usize) {
        let Some(Some(pipe)) = self.slots.get_mut(place) else { return };
        self.lines.clear();
        let (lines, stamp) = (&mut self.lines, self.stamp.now());
        let rest = pipe.splitter.finish(|piece| append(lines, stamp, &pipe.instance, piece));
        if !rest.is_empty()
            && let Some(service) = self.services.get_mut(&pipe.service)
        {
            lose(service, rest, Why::OverRate, pipe, Instant::now(), &mut self.losing);
            self.counters.dropped(rest);
        }
        self.hand_over(place);
    }

    fn end_service(&mut self, id: SeriesId) {
        self.tell_gap(id);
        if let Some(service) = self.services.remove(&id) {
            self.by_name.remove(&service.name);
            self.outbox.put(Item::Close { series: id });
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let lost = self.losing.iter().filter_map(|id| self.services.get(id)?.lost.as_ref());
        lost.map(|lost| lost.tell_at).min()
    }

    fn tell_due_gaps(&mut self) {
        let now = Instant::now();
        for id in self.losing.clone() {
            let lost = self.services.get(&id).and_then(|service| service.lost.as_ref());
            if lost.is_some_and(|lost| lost.tell_at <= now) {
                self.tell_gap(id);
            }
        }
    }

    fn tell_gap(&mut self, id: SeriesId) {
        let Some(service) = self.services.get_mut(&id) else { return };
        let Some(mut lost) = service.lost.take() else { return };
        self.lines.clear();
        lost.append(&mut self.lines, self.stamp.now(), self.rate);
        if !self.outbox.put_lines(id, &self.lines) {
            lost.tell_at = Instant::now() + TELL_GAP_AFTER;
            service.lost = Some(lost);
        }
    }

    fn flush(&mut self, name: &str, done: SyncSender<()>) {
        let id = self.by_name.get(name).copied();
        self.drain(|pipe| Some(pipe.service) == id);
        if let Some(id) = id {
            self.tell_gap(id);
        }
        self.outbox.put(Item::Flush(done));
    }

    fn drain(&mut self, which: impl Fn(&Pipe) -> bool) {
        for place in 0..self.slots.len() {
            if self.slots.get(place).and_then(Option::as_ref).is_some_and(&which) {
                let _ = (0..READS_MAX).find(|_| !self.read(place));
            }
        }
    }

    fn stop(&mut self, done: &SyncSender<()>) {
        self.drain(|_| true);
        for place in 0..self.slots.len() {
            self.finish(place);
        }
        let ids: Vec<SeriesId> = self.services.keys().copied().collect();
        for id in ids {
            self.tell_gap(id);
        }
        let (shelved, written) = sync_channel(1);
        self.outbox.put(Item::Flush(shelved));
        self.outbox.put(Item::Stop);
        if written.recv_timeout(SHELF_WAIT).is_ok() {
            // Who asked may have given up.
            let _ = done.try_send(());
        }
    }
}

impl Lost {
    fn append(&self, lines: &mut Vec<u8>, stamp: &str, rate: Rate) {
        let why = match self.why {
            Why::OverRate => format!("over {}", rate_words(rate.bytes_per_second)),
            Why::SlowDisk => "the disk is too slow".to_owned(),
        };
        line::append_gap(lines, stamp, &self.instance, self.gap, &why);
    }
}

fn lose(service: &mut Service, gap: Gap, why: Why, pipe: &Pipe, now: Instant, losing: &mut Vec<SeriesId>) {
    if let Some(lost) = &mut service.lost {
        lost.gap.add(gap);
        return;
    }
    let (instance, tell_at) = (pipe.instance.clone(), now + TELL_GAP_AFTER);
    service.lost = Some(Box::new(Lost { gap, why, instance, tell_at }));
    if !losing.contains(&pipe.service) {
        losing.push(pipe.service);
    }
}

fn append(lines: &mut Vec<u8>, stamp: &str, instance: &str, piece: Piece<'_>) {
    let mark = |is_cut| if is_cut { CUT_MARK } else { &[] };
    line::append(lines, stamp, instance, &[mark(piece.cut_before), piece.text, mark(piece.cut_after)]);
}

fn rate_words(bytes_per_second: u64) -> String {
    match bytes_per_second {
        rate if rate % 1_000_000 == 0 => format!("{} MB/s", rate / 1_000_000),
        rate if rate % 1000 == 0 => format!("{} kB/s", rate / 1000),
        rate => format!("{rate} B/s"),
    }
}

fn timespec(span: Duration) -> Timespec {
    Timespec::try_from(span).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 })
}
