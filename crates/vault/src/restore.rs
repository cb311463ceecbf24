//! A database out of a store, proved before it gets its name.
//!
//! Everything happens in a file beside the target. Each object is compared with its hash, each transaction with the
//! chain, the whole with what the live database said of itself at the same position. Only then it is renamed.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::catalogue::{self, Catalogue, Identity};
use crate::check;
use crate::database::beside;
use crate::error::{Error, Result};
use crate::fault;
use crate::manifest::{Contents, Facts, Manifest};
use crate::names::{self, Hash, Millis, SegmentName, SnapshotName};
use crate::pack;
use crate::plan::{self, Bound, Step, Target};
use crate::position::{Position, Tx};
use crate::progress::{Phase, Progress};
use crate::room;
use crate::seal::Seal;
use crate::segment::{Follower, Segment, SegmentError};
use crate::state::{folder_of, sync_folder};
use crate::store::Store;

/// Chunks that are fetched at the same time.
const FETCHERS: usize = 2;
/// Segments that wait to be applied, while one more is fetched. Each has some MiB.
const AHEAD: usize = 1;

#[derive(Clone, Debug)]
pub struct Restored {
    pub snapshot: SnapshotName,
    pub position: Position,
    /// By when the last transaction of it had been seen.
    pub time: Millis,
    pub contents: Contents,
    /// Compared with what the live database said at this very position; otherwise at the snapshot's, and the
    /// transactions since then by their chain.
    pub is_compared: bool,
    pub pages: u32,
    pub bytes: u64,
    pub segments: usize,
    pub took: Duration,
}

#[derive(Debug)]
pub struct Restorer<'a> {
    pub store: &'a Store,
    pub seal: &'a Seal,
}

impl Restorer<'_> {
    pub fn identity(&self) -> Result<Identity> {
        Identity::read(self.store)?.ok_or_else(|| Error::Address {
            store: self.store.address().to_owned(),
            why: "no vault was ever kept here: it has no vault.json".to_owned(),
        })
    }

    /// Restores to a path that is free.
    pub fn restore(&self, target: Target, into: &Path, progress: &dyn Progress) -> Result<Restored> {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            refuse_in_the_way(&beside(into, suffix))?;
        }
        let folder = folder_of(into);
        if !folder.is_dir() {
            let why = "there is no such folder to restore into".to_owned();
            return Err(Error::Unfit { path: folder.to_owned(), why });
        }
        let scratch = Scratch::beside(into)?;
        let restored = self.build(target, &scratch.path, progress)?;
        scratch.name(into)?;
        Ok(restored)
    }

    /// Restores into `path` and proves it, without giving it a name.
    pub(crate) fn build(&self, target: Target, path: &Path, progress: &dyn Progress) -> Result<Restored> {
        let began = Instant::now();
        let identity = self.identity()?;
        let catalogue = Catalogue::read(self.store)?;
        // From one that was found spoiled only where no other leads there.
        let known: Vec<_> = catalogue.snapshots.iter().filter(|it| !catalogue.is_bad(it)).copied().collect();
        let plan = plan::plan(&known, &catalogue.segments, target)
            .or_else(|_| plan::plan(&catalogue.snapshots, &catalogue.segments, target))?;
        self.build_plan(&identity, &catalogue, &plan, path, progress, began)
    }

    /// As planned from an older snapshot: what leads to `end` is proved to lead there.
    pub(crate) fn build_from(
        &self,
        base: SnapshotName,
        end: &SnapshotName,
        path: &Path,
        progress: &dyn Progress,
    ) -> Result<Option<Restored>> {
        let began = Instant::now();
        let identity = self.identity()?;
        let catalogue = Catalogue::read(self.store)?;
        let steps = plan::follow(&catalogue.segments, base.epoch, base.tx, end.tx);
        let leads_there =
            steps.last().is_some_and(|it| it.segment.epoch == end.epoch && it.segment.last >= end.tx);
        if !leads_there {
            return Ok(None);
        }
        let plan = plan::Plan { snapshot: base, steps };
        self.build_plan(&identity, &catalogue, &plan, path, progress, began).map(Some)
    }

    fn build_plan(
        &self,
        identity: &Identity,
        catalogue: &Catalogue,
        plan: &plan::Plan,
        path: &Path,
        progress: &dyn Progress,
        began: Instant,
    ) -> Result<Restored> {
        let manifest = catalogue::manifest(self.store, identity, &plan.snapshot)?;
        let facts = catalogue::facts(self.store, self.seal, &manifest)?;
        room::check(path, manifest.database_bytes(), 0)?;
        fault::step().map_err(Error::file("make", path))?;
        let file = File::create(path).map_err(Error::file("make", path))?;
        self.pages(&manifest, &facts, &file, path, progress)?;
        let mut end = End { position: manifest.position, time: manifest.time, pages: manifest.pages };
        let wanted = if plan.steps.is_empty() {
            Some(facts.contents)
        } else {
            // One that was compared before was these very bytes, by their hashes.
            if !catalogue.is_backup(&plan.snapshot) {
                let found = check::contents_of(path, facts.contents.rows(), progress)?;
                check::equal(&found, Some(&facts.contents))?;
            }
            end = self.transactions(identity, plan, end, manifest.page_bytes, &file, path, progress)?;
            self.facts_at(identity, catalogue, end.position)?
        };
        let bytes = u64::from(end.pages) * u64::from(manifest.page_bytes);
        let contents = finished(&file, bytes, path, || check::whole(path, wanted.as_ref(), progress))?;
        Ok(Restored {
            snapshot: plan.snapshot,
            position: end.position,
            time: end.time,
            contents,
            is_compared: wanted.is_some(),
            pages: end.pages,
            bytes,
            segments: plan.steps.len(),
            took: began.elapsed(),
        })
    }

    /// What the live database said at exactly this position, if it was asked there.
    fn facts_at(&self, identity: &Identity, catalogue: &Catalogue, at: Position) -> Result<Option<Contents>> {
        let same = |it: &&SnapshotName| (it.epoch, it.tx) == (at.epoch, at.tx);
        let Some(snapshot) = catalogue.snapshots.iter().find(same) else { return Ok(None) };
        let manifest = catalogue::manifest(self.store, identity, snapshot)?;
        if manifest.position.chain != at.chain {
            let why = "its transactions are not those that lead to this position".to_owned();
            return Err(Error::Spoiled { name: snapshot.to_string(), why });
        }
        Ok(Some(catalogue::facts(self.store, self.seal, &manifest)?.contents))
    }

    fn pages(
        &self,
        manifest: &Manifest,
        facts: &Facts,
        file: &File,
        path: &Path,
        progress: &dyn Progress,
    ) -> Result<()> {
        let chunk_bytes = u64::from(manifest.chunk_pages) * u64::from(manifest.page_bytes);
        let total = manifest.database_bytes();
        let next = AtomicUsize::new(0);
        let failed = Mutex::new(None);
        let fetch = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some((object, raw)) = manifest.chunks.get(index).zip(facts.raw.get(index)) else {
                    return;
                };
                let offset = index as u64 * chunk_bytes;
                let length = chunk_bytes.min(total - offset);
                let done = self
                    .chunk(object.hash, *raw, length)
                    .and_then(|bytes| write(file, &bytes, offset).map_err(Error::file("write", path)));
                if let Err(error) = done {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    next.store(usize::MAX / 2, Ordering::Relaxed);
                    return;
                }
                progress.at(Phase::Fetch, offset + length, total);
            }
        };
        let faults = fault::Shared::of_this_thread();
        std::thread::scope(|scope| {
            for _ in 1..FETCHERS {
                scope.spawn(|| {
                    faults.clone().take_over();
                    fetch();
                });
            }
            fetch();
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn chunk(&self, hash: Hash, raw: Hash, length: u64) -> Result<Vec<u8>> {
        let name = hash.chunk();
        let bytes = self.seal.open(&self.store.get_checked(&name, hash)?, &name)?;
        if bytes.len() as u64 != length || Hash::of(&bytes) != raw {
            let why = "its pages are not those that were read".to_owned();
            return Err(Error::Spoiled { name, why });
        }
        Ok(bytes)
    }

    #[expect(clippy::too_many_arguments, reason = "one pass over one file; a struct would only move them")]
    fn transactions(
        &self,
        identity: &Identity,
        plan: &plan::Plan,
        from: End,
        page_bytes: u32,
        file: &File,
        path: &Path,
        progress: &dyn Progress,
    ) -> Result<End> {
        let total = plan.steps.len() as u64;
        std::thread::scope(|scope| {
            // The receiver goes before the thread is waited for, which would else never see that nobody listens.
            let (sender, receiver) = sync_channel(AHEAD);
            let fetching = scope.spawn(move || self.fetch_ahead(plan, &sender));
            let mut end = from;
            let mut follower = Follower::new(from.position);
            for (done, fetched) in (1..).zip(&receiver) {
                let (step, segment) = fetched?;
                let name = step.segment.to_string();
                if segment.header.vault != identity.id || segment.header.page_bytes != page_bytes {
                    let why = "it belongs to another database".to_owned();
                    return Err(Error::Spoiled { name, why });
                }
                apply(&segment, &step, &mut follower, &mut end, file, path)?;
                progress.at(Phase::Apply, done, total.max(done));
            }
            fetching.join().map_err(|_| Error::Ended("fetching ended by a fault of its own"))?;
            end.position = follower.position();
            Ok(end)
        })
    }

    /// Until all are there, one of them cannot be had, or nobody listens.
    fn fetch_ahead(&self, plan: &plan::Plan, to: &SyncSender<Result<(Step, Segment)>>) {
        let mut left: VecDeque<Step> = plan.steps.iter().copied().collect();
        let mut done = None;
        while let Some(step) = left.pop_front() {
            let name = step.segment.to_string();
            let fetched = self.store.get_checked(&name, step.segment.hash);
            if fetched.as_ref().is_err_and(Error::is_missing)
                && let Some(rest) = self.rest(plan, done.as_ref(), left.back().unwrap_or(&step))
                && !rest.contains(&step)
            {
                left = rest.into();
                continue;
            }
            let opened = fetched.and_then(|stored| pack::open(self.seal, &stored, &name));
            let is_bad = opened.is_err();
            if to.send(opened.map(|segment| (step, segment))).is_err() || is_bad {
                return;
            }
            // Of a transaction in parts, all or none.
            done = if step.segment.part.is_last { Some(step) } else { done };
        }
    }

    /// The vault at work merges segments, also while somebody restores.
    fn rest(&self, plan: &plan::Plan, done: Option<&Step>, end: &Step) -> Option<Vec<Step>> {
        let listed = self.store.list(names::LOG).ok()?;
        let segments: Vec<SegmentName> = listed.iter().filter_map(|it| it.name.parse().ok()).collect();
        plan::rest(&segments, &plan.snapshot, done, end)
    }
}

/// Gives the file its length and lets the disk have it, while `check` reads it.
fn finished<T>(file: &File, bytes: u64, path: &Path, check: impl FnOnce() -> Result<T>) -> Result<T> {
    let failed = || Error::file("write", path);
    fault::step().and_then(|()| file.set_len(bytes)).map_err(failed())?;
    fault::step().map_err(failed())?;
    std::thread::scope(|scope| {
        let sync = scope.spawn(|| file.sync_all());
        let checked = check();
        let synced = sync.join().map_err(|_| Error::Ended("syncing ended by a fault of its own"))?;
        synced.map_err(failed())?;
        checked
    })
}

fn write(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    fault::step()?;
    file.write_all_at(bytes, offset)
}

/// How far it has come.
#[derive(Clone, Copy, Debug)]
struct End {
    position: Position,
    time: Millis,
    pages: u32,
}

fn apply(
    segment: &Segment,
    step: &Step,
    follower: &mut Follower,
    end: &mut End,
    file: &File,
    path: &Path,
) -> Result<()> {
    let name = step.segment.to_string();
    let upto = match step.bound {
        Bound::Tx(tx) => tx,
        Bound::Time(time) => segment.seen_by(time).unwrap_or(Tx(segment.header.first.0 - 1)),
    };
    let page_bytes = u64::from(segment.header.page_bytes);
    // Of each page the last of its versions alone is written.
    let mut pages = BTreeMap::new();
    let done = follower.follow::<SegmentError>(segment, upto, |frame| {
        pages.insert(frame.page, frame.data);
        if frame.commit_pages > 0 {
            end.pages = frame.commit_pages;
        }
        Ok(())
    });
    done.map_err(|source| Error::Segment { name, source })?;
    for (page, data) in pages {
        let offset = u64::from(page.saturating_sub(1)) * page_bytes;
        write(file, data, offset).map_err(Error::file("write", path))?;
    }
    let reached = follower.position().tx;
    let seen = segment.header.marks.iter().filter(|(tx, _)| *tx <= reached).map(|(_, time)| *time).max();
    end.time = seen.map_or(end.time, |it| it.max(end.time));
    Ok(())
}

fn refuse_in_the_way(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let path = path.display();
    Err(Error::InTheWay(format!(
        "{path} is in the way: a restored database beside a file of another would be mixed with it; move it, or restore elsewhere"
    )))
}

/// A file beside the target that is gone unless it was named.
#[derive(Debug)]
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn beside(target: &Path) -> Result<Self> {
        let name = target.file_name().ok_or_else(|| Error::Unfit {
            path: target.to_owned(),
            why: "it does not end in a file's name".to_owned(),
        })?;
        let path =
            target.with_file_name(format!(".{}.restoring-{}", name.to_string_lossy(), std::process::id()));
        Ok(Self { path })
    }

    fn name(self, target: &Path) -> Result<()> {
        let name = || {
            fault::step()?;
            fs::hard_link(&self.path, target)?;
            fault::step()?;
            sync_folder(target)
        };
        name().map_err(Error::file("name", target))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
