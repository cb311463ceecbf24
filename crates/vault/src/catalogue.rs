//! What is in a store, as its names tell, and the two things that are read by name: which vault it is, and manifests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::manifest::{FORMAT, Facts, Manifest};
use crate::names::{self, Hash, Millis, SegmentName, SnapshotName, VerifiedName};
use crate::plan::PlanError;
use crate::position::Tx;
use crate::seal::Seal;
use crate::store::Store;

/// `vault.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub format: u32,
    /// Drawn once.
    pub id: String,
    pub database: String,
    pub made: Millis,
}

impl Identity {
    /// `None`: nothing was ever stored here.
    pub fn read(store: &Store) -> Result<Option<Self>> {
        let bytes = match store.get(names::VAULT) {
            Ok(bytes) => bytes,
            Err(error) if error.is_missing() => return Ok(None),
            Err(error) => return Err(error),
        };
        let spoiled = |why: String| Error::Spoiled { name: names::VAULT.to_owned(), why };
        let identity: Self = serde_json::from_slice(&bytes).map_err(|error| spoiled(error.to_string()))?;
        if identity.format != FORMAT {
            return Err(spoiled(format!(
                "its format is {}, and this version reads {FORMAT}",
                identity.format
            )));
        }
        Ok(Some(identity))
    }

    /// The one that is there, or a new one.
    pub fn read_or_make(store: &Store, database: &str) -> Result<Self> {
        if let Some(identity) = Self::read(store)? {
            return Ok(identity);
        }
        let epoch = crate::shipper::next_epoch(None);
        let made = Millis::now();
        let id = blake3::hash(format!("{epoch} {} {database}", made.0).as_bytes()).to_hex()[..16].to_owned();
        let identity = Self { format: FORMAT, id, database: database.to_owned(), made };
        let text = serde_json::to_vec(&identity).unwrap_or_default();
        // Another may have been quicker.
        if store.put_new(names::VAULT, text)? {
            Ok(identity)
        } else {
            Ok(Self::read(store)?.unwrap_or(identity))
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// Oldest first.
    pub snapshots: Vec<SnapshotName>,
    pub segments: Vec<SegmentName>,
    /// Outcomes by the snapshot's hash, oldest first.
    pub verified: BTreeMap<Hash, Vec<VerifiedName>>,
    /// Of all of the log.
    pub log_bytes: u64,
}

impl Catalogue {
    pub fn read(store: &Store) -> Result<Self> {
        let listed = |folder| store.list(folder);
        let parse = |it: &crate::store::Listed| it.name.parse().ok();
        let mut snapshots: Vec<SnapshotName> = listed(names::SNAPSHOTS)?.iter().filter_map(parse).collect();
        snapshots.sort_unstable();
        let log = listed(names::LOG)?;
        let mut catalogue = Self {
            snapshots,
            segments: log.iter().filter_map(|it| it.name.parse().ok()).collect(),
            log_bytes: log.iter().map(|it| it.bytes).sum(),
            verified: BTreeMap::new(),
        };
        for outcome in listed(names::VERIFIED)?.iter().filter_map(|it| it.name.parse::<VerifiedName>().ok()) {
            let outcomes = catalogue.verified.entry(outcome.snapshot).or_default();
            outcomes.push(outcome);
            outcomes.sort_unstable_by_key(|it| it.time);
        }
        Ok(catalogue)
    }

    /// The last time that it was restored, and what came of it.
    pub fn outcome(&self, snapshot: &SnapshotName) -> Option<VerifiedName> {
        self.verified.get(&snapshot.hash).and_then(|it| it.last()).copied()
    }

    /// Was it restored and compared? Only then it is a backup.
    pub fn is_backup(&self, snapshot: &SnapshotName) -> bool {
        self.outcome(snapshot).is_some_and(|it| it.is_good)
    }

    /// Was it tried, and found to be none?
    pub fn is_bad(&self, snapshot: &SnapshotName) -> bool {
        self.outcome(snapshot).is_some_and(|it| !it.is_good)
    }

    /// The newest that was restored and compared, by its own time.
    pub fn newest_backup(&self) -> Option<SnapshotName> {
        self.snapshots.iter().rev().find(|it| self.is_backup(it)).copied()
    }

    /// By the first digits of its hash, as they are shown; without them the newest.
    pub fn chosen(&self, short: Option<&str>) -> Result<SnapshotName> {
        let Some(short) = short else {
            return self.snapshots.last().copied().ok_or(Error::Plan(PlanError::Nothing));
        };
        let mut fitting = self.snapshots.iter().filter(|it| it.hash.to_string().starts_with(short));
        match (fitting.next(), fitting.next()) {
            (Some(found), None) => Ok(*found),
            (None | Some(_), _) => Err(Error::Plan(PlanError::NoSuch(short.to_owned()))),
        }
    }

    /// The highest transaction of anything.
    pub fn newest_tx(&self) -> Option<Tx> {
        let segments = self.segments.iter().map(|it| it.last);
        segments.chain(self.snapshots.iter().map(|it| it.tx)).max()
    }
}

/// The manifest of this name, checked: its bytes, whose it is, and that it is of the position that it is named for.
pub fn manifest(store: &Store, identity: &Identity, name: &SnapshotName) -> Result<Manifest> {
    let text = name.to_string();
    let stored = store.get_checked(&text, name.hash)?;
    let spoiled = |why: String| Error::Spoiled { name: text.clone(), why };
    let raw = Seal::default().open(&stored, &text)?;
    let manifest: Manifest = serde_json::from_slice(&raw).map_err(|error| spoiled(error.to_string()))?;
    if manifest.format != FORMAT {
        return Err(spoiled(format!("its format is {}, and this version reads {FORMAT}", manifest.format)));
    }
    if manifest.vault != identity.id {
        let why =
            format!("it belongs to another database: to {} of vault {}", manifest.database, manifest.vault);
        return Err(spoiled(why));
    }
    if (manifest.position.epoch, manifest.position.tx, manifest.time) != (name.epoch, name.tx, name.time) {
        return Err(spoiled("it is not of the position that its name says".to_owned()));
    }
    let sizes = [manifest.page_bytes, manifest.chunk_pages, manifest.pages];
    let chunks = manifest.pages.div_ceil(manifest.chunk_pages.max(1)) as usize;
    if sizes.contains(&0) || manifest.chunks.len() != chunks {
        return Err(spoiled("its sizes do not fit each other".to_owned()));
    }
    Ok(manifest)
}

pub fn facts(store: &Store, seal: &Seal, manifest: &Manifest) -> Result<Facts> {
    let name = manifest.facts.hash.chunk();
    let stored = store.get_checked(&name, manifest.facts.hash)?;
    let raw = seal.open(&stored, &name)?;
    let spoiled = |why: String| Error::Spoiled { name: name.clone(), why };
    let facts: Facts = serde_json::from_slice(&raw).map_err(|error| spoiled(error.to_string()))?;
    if facts.raw.len() != manifest.chunks.len() {
        return Err(spoiled("it is of another snapshot".to_owned()));
    }
    Ok(facts)
}
