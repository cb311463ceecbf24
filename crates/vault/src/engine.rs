//! Everything that one vault needs, opened once: its state, its store, its key. What it does is in modules beside.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};

use crate::catalogue::{Catalogue, Identity};
use crate::config::VaultConfig;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::head::Head;
use crate::image::Pin;
use crate::leap::Reader;
use crate::names;
use crate::outbox::Outbox;
use crate::position::{Epoch, Position, Tx};
use crate::progress::Progress;
use crate::room;
use crate::shipper::{Began, Common, Shipper, next_epoch};
use crate::snapshot::{self, Remembered, Taken};
use crate::state::State;
use crate::store::Store;
use crate::table::Table;

const LAST: &str = "last.json";
const IDENTITY: &str = "vault.json";

#[derive(Debug)]
pub struct Engine {
    pub config: VaultConfig,
    pub state: State,
    pub common: Common,
    pub identity: Identity,
}

/// Which vault is kept where, as it is remembered on this machine: a store that is away does not keep us from copying.
#[derive(Debug, Serialize, Deserialize)]
struct Known {
    to: String,
    identity: Identity,
}

impl Known {
    /// Of the vault in this store; a new one where none was ever kept there. One that was, and is not there any more, is
    /// not begun anew: its disk may not be mounted.
    fn identity(state: &State, store: &Store, name: &str) -> Result<Identity> {
        let known = state.read::<Self>(IDENTITY).filter(|it| it.to == store.address());
        let found = match (Identity::read(store), known) {
            (Ok(None), Some(_)) => {
                let remembered = state.folder().join(IDENTITY);
                let why = format!(
                    "a vault was kept here, and it is gone: is its disk mounted? To begin anew, remove {}",
                    remembered.display()
                );
                return Err(Error::Address { store: store.address().to_owned(), why });
            }
            (Ok(Some(identity)), _) => identity,
            (Ok(None), None) => Identity::read_or_make(store, name)?,
            (Err(error), known) => return known.map(|it| it.identity).ok_or(error),
        };
        let known = Self { to: store.address().to_owned(), identity: found };
        state.write(IDENTITY, &known)?;
        Ok(known.identity)
    }
}

/// A database at a standstill, ready to be copied.
#[derive(Debug)]
pub struct Pinned {
    pub database: Database,
    pin: Option<Pin>,
    /// What the pages should be, where that is known.
    pub table: Option<Table>,
    /// A copy that is only there for this snapshot.
    scratch: Option<PathBuf>,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(scratch) = &self.scratch {
            let _ = fs::remove_file(scratch);
        }
    }
}

impl Engine {
    /// `None`: another process has this vault's state.
    pub fn open(config: VaultConfig) -> Result<Option<Self>> {
        let Some(state) = State::take(&config.state)? else { return Ok(None) };
        let seal = config.seal()?;
        let store = Store::open(&config.store)?;
        let name =
            config.database.file_name().map_or_else(String::new, |it| it.to_string_lossy().into_owned());
        let identity = Known::identity(&state, &store, &name)?;
        let store = store.marked_by(&config.store, names::VAULT);
        let outbox = Outbox::open(store, state.spool(), config.spool)?;
        let common = Common { id: identity.id.clone(), outbox, seal, pressure: config.pressure };
        Ok(Some(Self { config, state, common, identity }))
    }

    pub fn store(&self) -> &Store {
        self.common.outbox.store()
    }

    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.common.outbox
    }

    /// Begins to copy transactions, if the database has a log.
    pub fn attach(&self) -> Result<(Shipper, Began)> {
        let database = Database::find(&self.config.database)?;
        Shipper::attach(self.common.clone(), database, &self.state, self.newest())
    }

    /// Does the database keep a write-ahead log?
    pub fn has_log(&self) -> Result<bool> {
        let database = Database::find(&self.config.database)?;
        let (one, _) = database.page_one()?;
        Ok(one.is_wal)
    }

    /// Where the store ends, for when nothing is remembered here.
    fn newest(&self) -> Option<Position> {
        if let Some(head) = self.state.head.get() {
            return Some(head.position);
        }
        let catalogue = Catalogue::read(self.store()).ok()?;
        let tx = catalogue.newest_tx()?;
        let epochs = catalogue.snapshots.iter().map(|it| it.epoch);
        let number = epochs.chain(catalogue.segments.iter().map(|it| it.epoch)).map(|it| it.number).max()?;
        Some(Position::begin(Epoch { number, nonce: 0 }, tx))
    }

    /// A copy by SQLite itself, for a database without a log: its writers wait as long as the copy takes.
    pub fn pin_whole(&self) -> Result<Pinned> {
        let database = Database::find(&self.config.database)?;
        let scratch = self.state.scratch().with_extension("copy");
        let _ = fs::remove_file(&scratch);
        let bytes = fs::metadata(&database.path).map_err(Error::file("look at", &database.path))?.len();
        room::check(&scratch, bytes, bytes / room::SPARE)?;
        let failed = Error::database(&database.path);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let copy = || -> rusqlite::Result<()> {
            let from = Connection::open_with_flags(&database.path, flags)?;
            from.busy_timeout(std::time::Duration::from_secs(5))?;
            let mut to = Connection::open(&scratch)?;
            // All pages in one step, so that it need not begin again with every commit of somebody else.
            Backup::new(&from, &mut to)?.run_to_completion(
                i32::MAX,
                std::time::Duration::from_millis(100),
                None,
            )
        };
        copy().map_err(failed)?;
        let copied = Database::find(&scratch)?;
        let last = self.newest();
        let position =
            Position::begin(next_epoch(last.map(|it| it.epoch)), last.map_or(Tx(0), |it| it.tx.next()));
        let reader = Reader::begin(&copied, copied.connect()?)?;
        let head = Head { position, walker: None, device: database.id.device, inode: database.id.inode };
        self.state.head.set(head)?;
        Ok(Pinned {
            database: copied,
            pin: Some(Pin { reader, position, log: None }),
            table: None,
            scratch: Some(scratch),
        })
    }

    /// Copies what was pinned, and remembers it for the next time.
    pub fn snapshot(&self, mut pinned: Pinned, progress: &dyn Progress, stop: &AtomicBool) -> Result<Taken> {
        let last: Option<Remembered> = self.state.read(LAST);
        let pin = pinned.pin.take().ok_or(Error::Ended("the snapshot was taken already"))?;
        let mut taken = snapshot::take(
            &self.common,
            &pinned.database,
            pin,
            last.as_ref(),
            &self.config.recipients,
            progress,
            stop,
        )?;
        taken.foreign_pages = match (&pinned.table, &taken.table) {
            // The first page carries a counter that SQLite may set without a transaction.
            (Some(known), Some(scanned)) => known.differences(scanned, 1),
            (_, _) => 0,
        };
        self.state.write(LAST, &taken.remembered)?;
        Ok(taken)
    }

    pub fn last(&self) -> Option<Remembered> {
        self.state.read(LAST)
    }

    /// The next snapshot stores all of its chunks, also those that the store should have.
    pub fn forget_last(&self) -> Result<()> {
        self.state.remove(LAST)
    }
}

/// Pins a database with a log, through whoever copies its transactions.
pub fn pin_log(engine: &Engine, shipper: &mut Shipper) -> Result<Pinned> {
    let (pin, table) = shipper.pin(&engine.state)?;
    Ok(Pinned { database: shipper.database.clone(), pin: Some(pin), table, scratch: None })
}
