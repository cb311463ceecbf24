//! A copy of the whole database at one position, and what was in it as the live one says.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::contents;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::image::{Image, Pin};
use crate::manifest::{FORMAT, Facts, Manifest, Object};
use crate::names::{Hash, Millis, SnapshotName};
use crate::page_hash::PageHash;
use crate::progress::{Phase, Progress};
use crate::seal::{Effort, Seal};
use crate::shipper::Common;
use crate::table::Table;

/// Chunks of a database up to so many bytes are this large; larger ones have fewer, larger chunks.
const CHUNKS: [(u64, u32); 3] = [(4 << 30, 256 << 10), (64 << 30, 1 << 20), (u64::MAX, 4 << 20)];

/// The last snapshot, as it is remembered here, so that chunks that did not change are not stored again. With
/// encryption nothing in the store tells that.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Remembered {
    pub name: String,
    pub manifest: Manifest,
    pub facts: Facts,
    pub recipients: Vec<String>,
}

impl Remembered {
    /// What it was read from, to what was stored.
    fn index(&self) -> HashMap<Hash, Object> {
        self.facts.raw.iter().copied().zip(self.manifest.chunks.iter().copied()).collect()
    }
}

#[derive(Debug)]
pub struct Taken {
    pub name: SnapshotName,
    pub remembered: Remembered,
    /// A hash of each page; none where there are too many.
    pub table: Option<Table>,
    /// What had to be stored for it.
    pub stored_bytes: u64,
    /// Pages that are none that were committed.
    pub foreign_pages: usize,
}

impl Taken {
    /// For `--json`.
    pub fn json(&self) -> serde_json::Value {
        let contents = &self.remembered.facts.contents;
        serde_json::json!({
            "snapshot": self.name.short(),
            "time": self.name.time.timestamp().to_string(),
            "tx": self.name.tx,
            "tables": contents.tables.len(),
            "rows": contents.rows(),
            "stored_bytes": self.stored_bytes,
        })
    }
}

/// Ends early, with an error, once `stop` is set.
pub fn take(
    common: &Common,
    database: &Database,
    pin: Pin,
    last: Option<&Remembered>,
    recipients: &[String],
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Result<Taken> {
    let time = Millis::now();
    let image = Image::open(database, &pin)?;
    let last = last.filter(|it| it.recipients == recipients);
    let mut chunks =
        Chunks { common, stop, known: last.map(Remembered::index).unwrap_or_default(), stored_bytes: 0 };
    let size = u64::from(image.pages) * u64::from(image.page_bytes);
    let chunk_bytes = CHUNKS.iter().find(|(up_to, _)| size <= *up_to).map_or(4 << 20, |it| it.1);
    let chunk_pages = (chunk_bytes / image.page_bytes).max(1);
    let mut table = Table::with_pages(image.pages);
    let (mut objects, mut raw) = (Vec::new(), Vec::new());
    let mut bytes = vec![0; chunk_pages as usize * image.page_bytes as usize];
    let mut first = 1;
    while first <= image.pages {
        check(stop)?;
        let count = image.read(first, &mut bytes)?;
        let pages = &bytes[..count as usize * image.page_bytes as usize];
        if let Some(table) = &mut table {
            for (page, data) in (first..).zip(pages.chunks_exact(image.page_bytes as usize)) {
                table.set(page, PageHash::of(data));
            }
        }
        let hash = Hash::of(pages);
        objects.push(chunks.keep(hash, pages)?);
        raw.push(hash);
        first += count;
        progress.at(Phase::Copy, u64::from(first - 1) * u64::from(image.page_bytes), size);
    }
    drop(bytes);
    let rows = last.map_or(0, |it| it.facts.contents.rows());
    let mut each = |read: u64| {
        progress.at(Phase::Contents, read, rows.max(read));
        !stop.load(Ordering::Relaxed)
    };
    let contents =
        contents::read(&pin.reader.connection, &mut each).map_err(Error::database(&database.path))?;
    let (page_bytes, pages) = (image.page_bytes, image.pages);
    let position = pin.position;
    pin.reader.end()?;
    let facts = Facts { contents, raw };
    let text = serde_json::to_vec(&facts).unwrap_or_default();
    let object = chunks.keep(Hash::of(&text), &text)?;
    let manifest = Manifest {
        format: FORMAT,
        vault: common.id.clone(),
        database: database.path.file_name().map_or_else(String::new, |it| it.to_string_lossy().into_owned()),
        time,
        position,
        page_bytes,
        pages,
        chunk_pages,
        chunks: objects,
        facts: object,
        is_encrypted: common.seal.is_encrypting(),
        program: concat!("plimsoll ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let stored_bytes = chunks.stored_bytes;
    let name = publish(common, &manifest)?;
    let remembered = Remembered { name: name.to_string(), manifest, facts, recipients: recipients.to_vec() };
    Ok(Taken { name, remembered, table, stored_bytes, foreign_pages: 0 })
}

fn check(stop: &AtomicBool) -> Result<()> {
    if stop.load(Ordering::Relaxed) { Err(Error::Ended("the snapshot was ended")) } else { Ok(()) }
}

/// Last of all: a snapshot is there once its manifest is.
fn publish(common: &Common, manifest: &Manifest) -> Result<SnapshotName> {
    let text = serde_json::to_vec(manifest).unwrap_or_default();
    let stored = Seal::default().pack(&text, Effort::Quick)?;
    let name = SnapshotName {
        time: manifest.time,
        epoch: manifest.position.epoch,
        tx: manifest.position.tx,
        hash: Hash::of(&stored),
    };
    common.outbox.put(&name.to_string(), stored)?;
    Ok(name)
}

struct Chunks<'a> {
    common: &'a Common,
    stop: &'a AtomicBool,
    /// What is stored already, by its bytes before compression.
    known: HashMap<Hash, Object>,
    stored_bytes: u64,
}

impl Chunks<'_> {
    fn keep(&mut self, raw: Hash, bytes: &[u8]) -> Result<Object> {
        if let Some(object) = self.known.get(&raw) {
            return Ok(*object);
        }
        let stored = self.common.seal.pack(bytes, Effort::Quick)?;
        let object = Object { hash: Hash::of(&stored), bytes: stored.len() as u64 };
        self.stored_bytes += object.bytes;
        self.common.outbox.put_in_time(&object.hash.chunk(), stored, self.stop)?;
        self.known.insert(raw, object);
        Ok(object)
    }
}
