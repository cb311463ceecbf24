//! Every step of every write fails once, and again with all that follow it. Whatever is left restores to something that
//! was committed, or is refused by name; and once the disk has room again nothing is missing.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;

use std::time::Duration;

use common::{Ground, contents_of, write};
use plimsoll_vault::catalogue::Catalogue;
use plimsoll_vault::engine::{Engine, pin_log};
use plimsoll_vault::fault::{Fault, arm, disarm};
use plimsoll_vault::manifest::Contents;
use plimsoll_vault::names::Millis;
use plimsoll_vault::plan::Target;
use plimsoll_vault::progress::Silent;
use plimsoll_vault::restore::Restorer;
use plimsoll_vault::shipper::{Began, Shipper};
use plimsoll_vault::{Error, Result, merge, prune, verify};
use rusqlite::Connection;

const WITHIN: Duration = Duration::from_secs(30);

/// An application, and a vault that is begun again whenever something failed, as its agent does.
struct World {
    ground: Ground,
    app: Connection,
    vault: Option<(Engine, Shipper)>,
    wants_snapshot: bool,
    /// What was in the database after each commit.
    committed: Vec<Contents>,
    rows: i64,
}

impl World {
    fn new() -> Self {
        let ground = Ground::in_memory();
        let app = ground.app();
        let committed = vec![contents_of(&ground.database())];
        Self { ground, app, vault: None, wants_snapshot: true, committed, rows: 0 }
    }

    fn commit(&mut self) {
        write(&self.app, self.rows..self.rows + 1);
        self.rows += 1;
        self.committed.push(contents_of(&self.ground.database()));
    }

    /// The log is begun again, behind everybody's back.
    fn begin_log_again(&self) {
        self.app.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    }

    /// Does this with the vault; where it fails, the vault begins anew the next time.
    fn with_vault(&mut self, act: impl FnOnce(&Engine, &mut Shipper) -> Result<()>) -> bool {
        let done = self.opened().and_then(|(engine, mut shipper)| {
            act(&engine, &mut shipper)?;
            shipper.save_table(&engine.state)?;
            Ok((engine, shipper))
        });
        let is_done = done.is_ok();
        self.vault = done.ok();
        is_done
    }

    fn opened(&mut self) -> Result<(Engine, Shipper)> {
        if let Some(vault) = self.vault.take() {
            return Ok(vault);
        }
        let engine = Engine::open(self.ground.config())?.expect("nobody else has it");
        let (shipper, began) = engine.attach()?;
        self.wants_snapshot |= began == Began::Fresh;
        Ok((engine, shipper))
    }

    fn tick(&mut self) -> bool {
        self.with_vault(|engine, shipper| shipper.tick(&engine.state).map(drop))
    }

    fn snapshot(&mut self) -> bool {
        let taken = self.with_vault(|engine, shipper| {
            let pinned = pin_log(engine, shipper)?;
            let taken = engine.snapshot(pinned, &Silent, &false.into())?;
            if let Some(table) = taken.table {
                shipper.adopt(table);
            }
            Ok(())
        });
        self.wants_snapshot &= !taken;
        taken
    }

    /// What a vault does in its life, in little.
    fn live(&mut self) {
        self.commit();
        self.snapshot();
        for _ in 0..3 {
            self.commit();
            self.tick();
        }
        // It is away for a while, and comes back.
        self.vault = None;
        self.commit();
        self.begin_log_again();
        self.commit();
        self.begin_log_again();
        self.commit();
        self.tick();
        self.commit();
        self.snapshot();
        let later = |hours: u64| Millis(Millis::now().0 + hours * 3_600_000);
        self.with_vault(|engine, _| merge::run(engine, later(2)).map(drop));
        self.with_vault(|engine, _| {
            let Some(newest) = Catalogue::read(engine.store())?.snapshots.last().copied() else {
                return Ok(());
            };
            let restorer = Restorer { store: engine.store(), seal: &engine.common.seal };
            verify::run(&restorer, &newest, &engine.state.scratch(), &Silent).map(drop)
        });
        self.with_vault(|engine, _| prune::run(engine, later(24 * 40), true).map(drop));
    }

    /// What waits in the spool goes to the store.
    fn send(&mut self) {
        self.with_vault(|engine, _| {
            std::thread::scope(|scope| {
                scope.spawn(|| engine.outbox().carry());
                assert!(engine.outbox().drain(WITHIN), "{:?}", engine.outbox().backlog());
                engine.outbox().end();
            });
            Ok(())
        });
        self.vault = None;
    }

    /// What can be restored was committed; or it says why it cannot be.
    fn check(&self, what: &str) {
        match self.ground.restore(Target::Latest, "now.db") {
            Ok(restored) => {
                assert!(self.committed.contains(&restored.contents), "{what}: it never was like that");
                std::fs::remove_file(self.ground.path("now.db")).unwrap();
            }
            Err(error) => {
                let is_refused = error.is_refusal() || matches!(error, Error::Address { .. });
                assert!(is_refused && !self.ground.path("now.db").exists(), "{what}: {error}");
            }
        }
    }

    /// There is room again.
    fn recover(&mut self, what: &str) {
        self.commit();
        assert!(self.tick(), "{what}: it does not begin again");
        if self.wants_snapshot {
            assert!(self.snapshot(), "{what}: no snapshot");
        }
        self.commit();
        assert!(self.tick(), "{what}: it does not go on");
        self.send();
        let restored =
            self.ground.restore(Target::Latest, "then.db").unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(&restored.contents, self.committed.last().unwrap(), "{what}");
    }
}

fn every_step(fault: fn(u64) -> Fault) -> u64 {
    for step in 0.. {
        let what = format!("{:?}", fault(step));
        let mut world = World::new();
        arm(fault(step));
        world.live();
        let has_failed = disarm();
        world.check(&what);
        world.recover(&what);
        if !has_failed {
            return step;
        }
    }
    unreachable!("a life has an end")
}

#[test]
fn a_write_that_fails_once_costs_nothing() {
    let steps = every_step(Fault::At);
    assert!(steps > 100, "only {steps}");
}

#[test]
fn a_disk_that_is_full_from_some_step_on_or_a_vault_that_is_killed_there_costs_nothing() {
    let steps = every_step(Fault::From);
    assert!(steps > 100, "only {steps}");
}

#[test]
fn a_restore_that_fails_at_any_step_leaves_no_name() {
    let mut world = World::new();
    world.live();
    // More segments than are fetched ahead of being applied.
    for _ in 0..8 {
        world.commit();
        world.tick();
    }
    let into = world.ground.path("restored.db");
    for step in 0.. {
        arm(Fault::From(step));
        let restored = world.ground.restore(Target::Latest, "restored.db");
        let has_failed = disarm();
        let left = std::fs::read_dir(world.ground.folder.path()).unwrap().flatten();
        assert!(left.into_iter().all(|it| !it.file_name().to_string_lossy().contains("restoring")), "{step}");
        if !has_failed {
            assert_eq!(&restored.unwrap().contents, world.committed.last().unwrap());
            assert!(step > 5, "{step}");
            return;
        }
        assert!(restored.is_err(), "{step}");
        // The very last step is after it was named, and then all of it is there.
        if into.exists() {
            assert_eq!(&contents_of(&into), world.committed.last().unwrap());
            std::fs::remove_file(&into).unwrap();
        }
    }
}
