//! Copies committed transactions as they happen, and always knows exactly up to where.

mod pinning;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::database::Database;
use crate::error::{Error, Result};
use crate::head::Head;
use crate::image::Image;
use crate::leap::Leap;
use crate::names::{Hash, Millis, SegmentName};
use crate::outbox::Outbox;
use crate::page_hash::PageHash;
use crate::page_one::PageOne;
use crate::position::{Epoch, Position, Tx};
use crate::pressure::Pressure;
use crate::readers;
use crate::seal::{Effort, Seal};
use crate::segment::{Builder, Cut};
use crate::shipped;
use crate::state::State;
use crate::table::Table;
use crate::tail::{Committed, Look, Tail};
use crate::tripwire::{Alarm, Before};
use crate::wal::{Frame, Header, Walker};

/// The mark moves on at least this often while there is always something new. Up to there the application's own
/// checkpoints write the log into the database; the rest is left to us, with its writers held.
const LEAP_EVERY: Duration = Duration::from_millis(250);
/// Between two looks at whether the file is still the one.
const FILE_EVERY: Duration = Duration::from_secs(1);
/// First pages of one generation that are remembered. With more, none is compared until the log begins again.
const PAGE_ONES_MAX: usize = 20_000;
/// Segments that are kept in memory while writers are held, to be shipped when they go on.
const CUTS_MAX: usize = 4;
const IMAGE_BYTES: usize = 256 * 1024;

/// How copying began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Began {
    /// Where it had ended: nothing was missed.
    Resumed,
    /// Something was missed; what differs was shipped, as one transaction.
    Bridged { pages: u32 },
    /// There is nothing to go on from: a snapshot is needed.
    Fresh,
}

/// What one look brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ticked {
    pub alarms: Vec<Alarm>,
    pub pressed: Option<Pressed>,
}

/// The log was written into the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressed {
    /// How long writers were held.
    pub held: Duration,
    /// All of it; otherwise a reader stands in the log, which cannot begin again before that one ends.
    pub is_whole: bool,
}

/// What every part of a vault has in common.
#[derive(Clone, Debug)]
pub struct Common {
    /// The vault's own name, from `vault.json`.
    pub id: String,
    pub outbox: Arc<Outbox>,
    pub seal: Seal,
    pub pressure: u64,
}

#[derive(Debug)]
pub struct Shipper {
    common: Common,
    pub database: Database,
    leap: Leap,
    tail: Tail,
    walker: Option<Walker>,
    builder: Builder,
    table: Option<Table>,
    /// Pages that changed since a pin whose scan is to become the table.
    changes: Option<HashMap<u32, PageHash>>,
    pages: u32,
    before: Before,
    /// First pages that the file may have.
    ones: HashSet<Hash>,
    suspicious: Option<Hash>,
    /// All that the table knows was shipped and is remembered.
    is_clean: bool,
    /// What was committed when nothing was new, and when the mark moved on with nothing new.
    idle_at: Option<Committed>,
    leapt_at: Option<Committed>,
    last_leap: Instant,
    last_file: Instant,
    pressure: Pressure,
    /// Writers are held: what is cut is shipped afterwards.
    is_holding: bool,
    cuts: Vec<Cut>,
}

impl Shipper {
    /// Begins to copy: goes on where it ended, or begins a new epoch. `newest` is where the store ends, for when the
    /// state is lost.
    pub fn attach(
        common: Common,
        database: Database,
        state: &State,
        newest: Option<Position>,
    ) -> Result<(Self, Began)> {
        let leap = Leap::begin(&database)?;
        let mode = database.journal_mode(&leap.counter)?;
        if mode != "wal" {
            let why =
                format!("its journal mode is {mode}: transactions can be copied from a write-ahead log only");
            return Err(Error::Unfit { path: database.path.clone(), why });
        }
        let (one, hash) = database.page_one()?;
        let head = state.head.get();
        let position = head.map(|it| it.position).or(newest);
        let head_page_bytes = head.and_then(|it| it.walker).map_or(one.page_bytes, |it| it.header.page_bytes);
        let now = Instant::now();
        let mut shipper = Self {
            builder: Builder::new(&common.id, one.page_bytes, fresh(position), None),
            tail: Tail::new(&database),
            walker: None,
            table: None,
            changes: None,
            pages: one.pages,
            before: Before::new(one, one.pages),
            ones: HashSet::from([hash]),
            suspicious: None,
            is_clean: true,
            idle_at: None,
            leapt_at: None,
            last_leap: now,
            last_file: now,
            pressure: Pressure::new(common.pressure, now),
            is_holding: false,
            cuts: Vec::new(),
            common,
            database,
            leap,
        };
        let Some(head) = head else {
            shipper.skip_to_end()?;
            shipper.remember(state)?;
            return Ok((shipper, Began::Fresh));
        };
        if shipper.resume(&head)? {
            // Without one, the next snapshot's scan becomes it.
            shipper.table = shipped::at(&shipper.common, state, head.position).unwrap_or(None);
            return Ok((shipper, Began::Resumed));
        }
        // A store that is away for now is waited for: what differs can be found once it is back.
        let known = match shipped::all(&shipper.common, state, head.position) {
            Err(error) if error.is_refusal() => None,
            known => known?,
        };
        let began = match known {
            Some((table, from)) if shipper.before.one.page_bytes == head_page_bytes => {
                shipper.bridge(table, from)?
            }
            Some(_) | None => {
                shipper.skip_to_end()?;
                Began::Fresh
            }
        };
        shipper.remember(state)?;
        Ok((shipper, began))
    }

    /// Whether everything since `head` is still in the log.
    fn resume(&mut self, head: &Head) -> Result<bool> {
        if (head.device, head.inode) != (self.database.id.device, self.database.id.inode) {
            return Ok(false);
        }
        let Some(walker) = head.walker else { return Ok(false) };
        let Some(header) = self.tail.header()? else { return Ok(false) };
        if header != walker.header || !self.ends_at(&walker) {
            return Ok(false);
        }
        let committed = self.tail.committed(&self.leap.counter)?;
        // Begun again without a new header yet: nothing was missed if nothing was written behind what we know.
        if committed.frames < walker.frames && self.tail.has_next(&walker)? {
            return Ok(false);
        }
        // All first pages of this generation may be in the file.
        let mut again = Walker::new(header);
        let mut ones = Vec::new();
        let read = self.tail.read(&mut again, walker.frames, |frame| {
            if frame.page == 1 {
                ones.push(frame.data.to_vec());
            }
            Ok(())
        });
        match read {
            Ok(()) => {}
            // A machine that lost power may have less in its log than was copied from it.
            Err(Error::Unfit { .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
        if again.checksum != walker.checksum {
            return Ok(false);
        }
        for page in ones {
            self.note_page_one(&page, None);
        }
        self.walker = Some(walker);
        self.builder = Builder::new(&self.common.id, header.page_bytes, head.position, None);
        Ok(true)
    }

    /// Are all of its frames in the log still?
    fn ends_at(&self, walker: &Walker) -> bool {
        self.tail.bytes() >= walker.offset()
    }

    /// Passes over what is in the log: the snapshot that follows has it.
    fn skip_to_end(&mut self) -> Result<()> {
        let (header, frames) = match self.tail.look(&self.leap.counter, None)? {
            Look::Began(header, committed) => (Some(header), committed.frames),
            Look::Same(_) | Look::More(_) => (self.tail.header()?, 0),
        };
        let Some(header) = header else { return Ok(()) };
        let mut walker = Walker::new(header);
        let (mut ones, mut pages) = (Vec::new(), self.pages);
        self.tail.read(&mut walker, frames, |frame| {
            if frame.page == 1 {
                ones.push(frame.data.to_vec());
            }
            pages = if frame.commit_pages > 0 { frame.commit_pages } else { pages };
            Ok(())
        })?;
        for page in ones {
            self.note_page_one(&page, None);
        }
        self.pages = pages;
        self.before.pages = pages;
        self.walker = Some(walker);
        Ok(())
    }

    /// Ships all pages that are not as they were shipped last.
    fn bridge(&mut self, mut table: Table, from: Position) -> Result<Began> {
        // Nothing of the new epoch was shipped yet: what is in the log is passed over, as the image has it.
        let pin = self.pin_after(Self::skip_to_end)?;
        let database = self.database.clone();
        let image = Image::open(&database, &pin)?;
        let epoch = next_epoch(Some(from.epoch));
        self.builder =
            Builder::new(&self.common.id, image.page_bytes, Position::begin(epoch, from.tx), Some(from));
        let mut bytes = vec![0; IMAGE_BYTES];
        let (mut first, mut differing) = (2, 0);
        while first <= image.pages {
            let count = image.read(first, &mut bytes)?;
            for (page, data) in (first..first + count).zip(bytes.chunks_exact(image.page_bytes as usize)) {
                let hash = PageHash::of(data);
                if !table.is(page, hash) {
                    differing += 1;
                    table.set(page, hash);
                    self.push(Frame { page, commit_pages: 0, data })?;
                }
            }
            first += count;
        }
        // The first page ends it, whether it differs or not.
        image.read(1, &mut bytes)?;
        let data = &bytes[..image.page_bytes as usize];
        differing += u32::from(!table.is(1, PageHash::of(data)));
        table.set(1, PageHash::of(data));
        table.resize(image.pages);
        self.push(Frame { page: 1, commit_pages: image.pages, data })?;
        self.table = Some(table);
        pin.reader.end()?;
        Ok(Began::Bridged { pages: differing })
    }

    pub fn position(&self) -> Position {
        self.builder.position()
    }

    /// Bytes of the log that are in use.
    pub fn log_bytes(&self) -> u64 {
        self.walker.as_ref().map_or(0, Walker::offset)
    }

    /// Other processes that stand in the log now.
    pub fn other_readers(&self) -> Vec<String> {
        readers::others(&self.database)
    }

    pub fn page_one(&self) -> PageOne {
        self.before.one
    }

    /// Copies what is new, moves the mark on, and looks whether all is well.
    pub fn tick(&mut self, state: &State) -> Result<Ticked> {
        let mut ticked = Ticked::default();
        let mut look = self.look()?;
        if self.is_outrun(look) {
            ticked.pressed = self.press(state, &mut ticked.alarms)?;
            // Where somebody was in the way of it, it may have been copied all the same.
            look = self.look()?;
        }
        if ticked.pressed.is_none() {
            self.follow(look, state, &mut ticked)?;
        }
        if self.last_file.elapsed() >= FILE_EVERY {
            self.last_file = Instant::now();
            ticked.alarms.extend(self.look_at_file()?);
        }
        Ok(ticked)
    }

    fn look(&self) -> Result<Look> {
        self.tail.look(&self.leap.counter, self.walker.as_ref())
    }

    fn follow(&mut self, look: Look, state: &State, ticked: &mut Ticked) -> Result<()> {
        let is_new = self.copy(look, &mut ticked.alarms)?;
        if is_new {
            self.remember(state)?;
        }
        if self.is_leap_due(is_new) {
            self.move_on()?;
        }
        if self.pressure.is_due(self.log_bytes(), Instant::now()) {
            ticked.pressed = self.press(state, &mut ticked.alarms)?;
        }
        Ok(())
    }

    /// The mark, over what is copied.
    fn move_on(&mut self) -> Result<()> {
        self.leap.leap()?;
        self.last_leap = Instant::now();
        Ok(())
    }

    /// Where nothing is new, a mark that stands where nothing has moved since needs no other.
    fn is_leap_due(&mut self, is_new: bool) -> bool {
        let has_moved = !is_new && self.idle_at != self.leapt_at;
        self.leapt_at = if is_new { None } else { self.idle_at };
        has_moved || self.last_leap.elapsed() >= LEAP_EVERY
    }

    fn is_outrun(&mut self, look: Look) -> bool {
        let (walker, committed) = match (look, self.walker) {
            (Look::Began(header, committed), _) => (Walker::new(header), committed),
            (Look::Same(committed) | Look::More(committed), Some(walker)) => (walker, committed),
            (Look::Same(_) | Look::More(_), None) => return false,
        };
        self.pressure.is_outrun(walker.header.offset_of(committed.frames), walker.offset())
    }

    /// Copies what a look found; whether there was something.
    fn copy(&mut self, look: Look, alarms: &mut Vec<Alarm>) -> Result<bool> {
        let is_new = self.gather(look, alarms)?;
        self.ship()?;
        Ok(is_new)
    }

    /// Sends all that is gathered.
    fn ship(&mut self) -> Result<()> {
        self.cuts.extend(self.builder.take(Millis::now()));
        self.send_cuts()
    }

    /// Takes what is committed into the builder.
    fn gather(&mut self, look: Look, alarms: &mut Vec<Alarm>) -> Result<bool> {
        let (mut walker, committed) = match look {
            Look::Same(committed) => {
                self.idle_at = Some(committed);
                return Ok(false);
            }
            Look::More(committed) => match self.walker {
                Some(walker) => (walker, committed),
                None => return Ok(false),
            },
            Look::Began(header, committed) => (self.began(header)?, committed),
        };
        let mut tail = self.tail.take();
        let read = tail.read(&mut walker, committed.frames, |frame| {
            if frame.commit_pages > 0 {
                self.pages = frame.commit_pages;
            }
            if frame.page == 1 {
                let pages = if frame.commit_pages > 0 { frame.commit_pages } else { self.pages };
                alarms.extend(self.note_page_one(frame.data, Some(pages)));
            }
            self.push(frame)
        });
        self.tail = tail;
        read?;
        self.walker = Some(walker);
        if self.builder.is_open() {
            let why = "its log has committed frames without a commit at their end".to_owned();
            return Err(Error::Unfit { path: self.database.path.clone(), why });
        }
        Ok(true)
    }

    /// The log was begun again. While the mark was held that can have happened once, and only after all was copied; the
    /// first salt counts.
    fn began(&mut self, header: Header) -> Result<Walker> {
        if let Some(walker) = &self.walker {
            if header.salt.0 != walker.header.salt.0.wrapping_add(1) {
                let why = "its log was begun again more than once since the last look".to_owned();
                return Err(Error::Unfit { path: self.database.path.clone(), why });
            }
            // What the file has is the last of the former generation.
            self.ones.clear();
            let (_, hash) = self.database.page_one()?;
            self.ones.insert(hash);
        }
        Ok(Walker::new(header))
    }

    fn push(&mut self, frame: Frame<'_>) -> Result<()> {
        self.cuts.extend(self.builder.push(frame, Millis::now()));
        if self.is_holding && self.cuts.len() <= CUTS_MAX { Ok(()) } else { self.send_cuts() }
    }

    fn send_cuts(&mut self) -> Result<()> {
        for cut in std::mem::take(&mut self.cuts) {
            self.send(&cut)?;
        }
        Ok(())
    }

    fn send(&mut self, cut: &Cut) -> Result<()> {
        let Cut { segment, hashes } = cut;
        self.is_clean = false;
        let is_local = self.common.outbox.store().is_local();
        let effort = if is_local { Effort::Fleeting } else { Effort::Quick };
        let stored = self.common.seal.pack(segment.raw(), effort)?;
        let header = &segment.header;
        let name = SegmentName {
            epoch: header.epoch,
            first: header.first,
            last: header.last,
            time: header.marks.last().map_or_else(Millis::now, |it| it.1),
            part: header.part,
            bridge: header.bridge.map(|it| it.epoch),
            hash: Hash::of(&stored),
        };
        self.common.outbox.put(&name.to_string(), stored)?;
        let is_counted = self.table.is_some() || self.changes.is_some();
        for (frame, hash) in segment.frames().zip(hashes.iter().copied()).filter(|_| is_counted) {
            if let Some(table) = &mut self.table {
                table.set(frame.page, hash);
                if frame.commit_pages > 0 {
                    table.resize(frame.commit_pages);
                }
            }
            if let Some(changes) = &mut self.changes {
                changes.insert(frame.page, hash);
            }
        }
        Ok(())
    }

    fn remember(&mut self, state: &State) -> Result<()> {
        state.head.set(Head {
            position: self.builder.position(),
            walker: self.walker,
            device: self.database.id.device,
            inode: self.database.id.inode,
        })?;
        self.is_clean = true;
        Ok(())
    }

    /// Writes the log into the database: with the write lock held, all of it copied and marked, so that nobody can
    /// commit between. `None`: somebody else has that lock, or the one for checkpoints.
    fn press(&mut self, state: &State, alarms: &mut Vec<Alarm>) -> Result<Option<Pressed>> {
        if !self.leap.lock()? {
            return Ok(None);
        }
        let began = Instant::now();
        self.is_holding = true;
        let pressed = self.press_locked(alarms);
        self.is_holding = false;
        self.leap.unlock()?;
        let held = began.elapsed();
        let pressed = pressed?;
        if let Some(is_whole) = pressed {
            self.pressure.done(self.log_bytes(), is_whole, Instant::now());
        }
        // A crash before this shows as a gap.
        self.ship()?;
        self.remember(state)?;
        Ok(pressed.map(|is_whole| Pressed { held, is_whole }))
    }

    fn press_locked(&mut self, alarms: &mut Vec<Alarm>) -> Result<Option<bool>> {
        self.gather(self.look()?, alarms)?;
        self.leap.leap()?;
        let is_whole = self.leap.checkpoint()?;
        // Now that all is in the file, the mark is one that lets the log begin again.
        self.move_on()?;
        Ok(is_whole)
    }

    /// Is the file the one that it was, and written by SQLite alone?
    fn look_at_file(&mut self) -> Result<Option<Alarm>> {
        match self.database.is_in_place() {
            Ok(true) => {}
            Ok(false) => return Ok(Some(Alarm::Replaced)),
            Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Some(Alarm::Gone));
            }
            Err(error) => return Err(error),
        }
        if self.ones.len() > PAGE_ONES_MAX {
            return Ok(None);
        }
        let hash = match self.database.page_one() {
            Ok((_, hash)) => hash,
            Err(Error::Unfit { .. }) => Hash::of(b"no database at all"),
            Err(error) => return Err(error),
        };
        // Twice the same, since a page may be read while it is written.
        let is_known = self.ones.contains(&hash);
        let alarm = !is_known && self.suspicious == Some(hash);
        self.suspicious = (!is_known).then_some(hash);
        Ok(alarm.then_some(Alarm::Overwritten { pages: 1 }))
    }

    fn note_page_one(&mut self, page: &[u8], pages: Option<u32>) -> Vec<Alarm> {
        if self.ones.len() <= PAGE_ONES_MAX {
            self.ones.insert(Hash::of(page));
        }
        let Some(one) = PageOne::parse(page) else { return Vec::new() };
        if let Some(pages) = pages {
            return self.before.changed(one, pages);
        }
        self.before = Before::new(one, self.pages);
        Vec::new()
    }

    /// What a scan found at a pin becomes the table, with what changed since.
    pub fn adopt(&mut self, mut scanned: Table) {
        if let Some(changes) = self.changes.take() {
            for (page, hash) in changes {
                scanned.set(page, hash);
            }
            scanned.resize(self.pages);
            self.table = Some(scanned);
        }
    }

    /// Free pages are counted from here on.
    pub fn rebase(&mut self) {
        self.before.free_pages = self.before.one.free_pages;
    }

    /// Keeps the table for the next start.
    pub fn save_table(&self, state: &State) -> Result<()> {
        match &self.table {
            Some(table) if self.is_clean => table.save(&state.table(), self.builder.position()),
            Some(_) | None => Ok(()),
        }
    }
}

/// The beginning of an epoch that nothing leads to; what was missed counts as one transaction.
fn fresh(last: Option<Position>) -> Position {
    let tx = last.map_or(Tx(0), |it| it.tx.next());
    Position::begin(next_epoch(last.map(|it| it.epoch)), tx)
}

pub(crate) fn next_epoch(last: Option<Epoch>) -> Epoch {
    let drawn = std::hash::RandomState::new().build_hasher().finish();
    let nonce = u32::try_from(drawn >> 32).unwrap_or(0);
    Epoch { number: last.map_or(0, |it| it.number) + 1, nonce }
}
