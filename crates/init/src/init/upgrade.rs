//! A new version on its way in: first a new guard, then init itself, in place.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use plimsoll_kernel::process::{self, Signal};
use plimsoll_kernel::spawn::{self, Command};
use plimsoll_kernel::{self as kernel, Exit};
use rustix::event::{Timespec, poll};

use super::guard::Guard;
use super::{INIT_WORD, Init, LINK_FD, RESUME_WORD, TRY_WORD, copy, high, say};
use crate::children::{Child, State};
use crate::notify;
use crate::protocol::{self, Role, ToGuard};
use crate::resume::{Saved, SavedChild};
use crate::streak::Streak;

/// A new version has this long for each step of taking over.
const UPGRADE_STEP: Duration = Duration::from_secs(30);
/// Whoever was replaced has this long to finish what is in flight.
const LEAVE_WITHIN: Duration = Duration::from_mins(1);
/// A new version that ends before it has guarded for this long is given up for the old one.
const PROBATION: Duration = Duration::from_secs(5);
/// The new version's own look at what we would leave it.
const TRY_WITHIN: Duration = Duration::from_secs(5);

/// A new version on its way in.
#[derive(Debug)]
pub(super) struct Upgrade {
    /// The other program: the new one, and from when that guards on the old one.
    pub(super) binary: OwnedFd,
    pub(super) stage: Stage,
    pub(super) until: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The candidate looks whether it could. Goes to `Yielding`, or fails and nothing has changed.
    Trying,
    /// The present guard lets go, or ends. Goes to `Taking`; without a candidate, its own version is started again.
    Yielding,
    /// The new one takes over; failing, the old version is started again.
    Taking,
    /// The new one guards, on probation, and the old one finishes what is in flight. Then we follow; failing, the old
    /// version is started again.
    Leaving,
}

impl Init {
    /// Goes on where the version before us stopped, in the same process.
    pub(super) fn resume(file: i32) -> Result<Self, String> {
        let file = kernel::inherited(file).ok_or("what the last version left is not there")?;
        let saved = Saved::read(file)?;
        let mut init = Self {
            binary: high(&saved.binary)?,
            life: saved.life,
            streak: Streak(saved.streak),
            start_at: None,
            has_guarded: true,
            ..Self::new(saved.args)?
        };
        for child in saved.children {
            let SavedChild { kind, name, note, identity, output, end } = child;
            let state = end.map_or(State::Running, State::Ended);
            init.children.add(Child { kind, name, note, identity, output, state });
        }
        saved.kept.into_iter().for_each(|(key, file)| init.kept.keep(key, file));
        match saved.guard {
            Some((identity, socket)) => {
                let mut guard = Guard::new(identity, socket, Role::Sole);
                (guard.greeted, guard.ready_since) = (true, Some(Instant::now()));
                init.guard = Some(guard);
            }
            None => init.start_at = Some(Instant::now()),
        }
        Ok(init)
    }

    /// The guard of the new version, if it is one, has everything and guards.
    pub(super) fn has_taken_over(&mut self) {
        let Some(upgrade) = self.upgrade.as_mut().filter(|it| it.stage == Stage::Taking) else { return };
        upgrade.stage = Stage::Leaving;
        upgrade.until = Instant::now() + LEAVE_WITHIN;
        std::mem::swap(&mut self.binary, &mut upgrade.binary);
        say("the new version guards");
        self.tell(false, ToGuard::Leave, None);
    }

    pub(super) fn begin_upgrade(&mut self, path: &str, file: &OwnedFd) {
        let begun = if self.upgrade.is_some() || self.other.is_some() || self.ending {
            Err("another change is under way".to_owned())
        } else {
            let started = |binary| Ok((self.start(&binary, path, Role::Candidate)?, binary));
            high(file).and_then(started)
        };
        match begun {
            Ok((candidate, binary)) => {
                say(&format!("{path} is tried as the new version"));
                self.other = Some(candidate);
                let until = Instant::now() + UPGRADE_STEP;
                self.upgrade = Some(Upgrade { binary, stage: Stage::Trying, until });
            }
            Err(why) => self.tell(true, ToGuard::NotUpgraded { why: protocol::cut(&why) }, None),
        }
    }

    pub(super) fn candidate_prepared(&mut self) {
        let Some(upgrade) = &mut self.upgrade else { return };
        if upgrade.stage == Stage::Trying {
            upgrade.stage = Stage::Yielding;
            upgrade.until = Instant::now() + UPGRADE_STEP;
            self.tell(true, ToGuard::Yield, None);
        }
    }

    /// The present guard has let go: the candidate gets its place.
    pub(super) fn yielded(&mut self) {
        let Some(upgrade) = &mut self.upgrade else { return };
        if upgrade.stage != Stage::Yielding {
            return;
        }
        upgrade.stage = Stage::Taking;
        upgrade.until = Instant::now() + UPGRADE_STEP;
        std::mem::swap(&mut self.guard, &mut self.other);
        if let Some(guard) = &mut self.guard {
            guard.role = Role::Sole;
            guard.watchdog.fed();
            self.hand_over();
        } else {
            // It died while the other let go.
            self.upgrade = None;
            self.tell(false, ToGuard::Leave, None);
            self.start_at = Some(Instant::now());
        }
    }

    /// A candidate, or one that was replaced, has ended.
    pub(super) fn other_ended(&mut self, exit: Exit) {
        match self.upgrade.as_ref().map(|it| it.stage) {
            Some(Stage::Trying) => {
                self.upgrade = None;
                let said = "what it said is where `plimsoll run` prints";
                let why = format!("the new version ended before it could guard: {exit}; {said}");
                self.tell(true, ToGuard::NotUpgraded { why }, None);
            }
            // While the present one lets go: then its own version goes on. Later it is that one, as it should be.
            Some(Stage::Yielding | Stage::Taking | Stage::Leaving) | None => {}
        }
    }

    /// The present guard has ended: what that is to a new version on its way in. True where that one is at work now.
    pub(super) fn is_taken_over_at_once(&mut self, lived: Duration) -> bool {
        match self.upgrade.as_ref().map(|it| it.stage) {
            Some(Stage::Trying) => {
                say("the guard ended before the new version was ready, which is given up");
                self.give_up_upgrade();
            }
            Some(Stage::Yielding) if self.other.is_some() => {
                say("the guard ended while it let go; the new version takes over at once");
                self.yielded();
                return true;
            }
            Some(Stage::Taking) => {
                self.upgrade = None;
                self.tell(false, ToGuard::Leave, None);
                say("the new version did not get to guarding; the old one is started again");
            }
            Some(Stage::Leaving) if lived < PROBATION => {
                if let Some(upgrade) = self.upgrade.take() {
                    self.binary = upgrade.binary;
                }
                say("the new version ended soon after it had begun; the old one is started again");
            }
            Some(Stage::Yielding) => self.upgrade = None,
            Some(Stage::Leaving) | None => {}
        }
        false
    }

    /// No new version any more; a candidate ends.
    pub(super) fn give_up_upgrade(&mut self) {
        let early = |it: &mut Upgrade| matches!(it.stage, Stage::Trying | Stage::Yielding);
        if self.upgrade.take_if(early).is_some() {
            self.other.iter().for_each(|it| it.kill(&self.roots));
        }
    }

    pub(super) fn upgrade_late(&mut self) {
        let Some(stage) = self.upgrade.as_ref().map(|it| it.stage) else { return };
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.until = Instant::now() + UPGRADE_STEP;
        }
        match stage {
            // Its end is told as that of one that failed.
            Stage::Trying | Stage::Leaving => self.other.iter().for_each(|it| it.kill(&self.roots)),
            // It does not let go, since it stops everything.
            Stage::Yielding if self.ending => self.give_up_upgrade(),
            // It neither guards nor lets go.
            Stage::Yielding => self.guard.iter().for_each(|it| it.kill(&self.roots)),
            Stage::Taking => {
                "the new version did not get to guarding in time".clone_into(&mut self.died);
                self.guard.iter().for_each(|it| it.kill(&self.roots));
            }
        }
    }

    /// With each look: once the former guard is gone and the new one has passed its probation, we become its version, too.
    pub(super) fn settle_upgrade(&mut self) {
        let since = self.guard.as_ref().and_then(|it| it.ready_since);
        let passed = self.other.is_none() && since.is_some_and(|since| since.elapsed() >= PROBATION);
        if passed && self.upgrade.take_if(|it| it.stage == Stage::Leaving).is_some() {
            self.follow_due = true;
        }
        if self.follow_due {
            self.follow();
        }
    }

    /// We become what the guard is, in place. Where that fails, we go on as we are.
    fn follow(&mut self) {
        // While something is on its way it is tried again with the next look.
        let Some(saved) = self.saved() else { return };
        self.follow_due = false;
        let Ok(file) = saved.write() else { return };
        let understood = self.is_understood(&file);
        if understood && rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).is_ok() {
            let program = PathBuf::from(format!("/proc/self/fd/{}", saved.binary.as_raw_fd()));
            let number = file.as_raw_fd().to_string();
            let argv = ["plimsoll", INIT_WORD, RESUME_WORD, &number].map(OsString::from);
            let errno = spawn::replace(&program, &argv);
            say(&format!("init stays what it was: {}", io::Error::from(errno)));
        } else {
            say("init stays what it was: the new version does not understand what it would be left");
        }
        saved.close_on_exec();
    }

    /// Everything, in copies. `None` while something is on its way: later, then, or never.
    fn saved(&self) -> Option<Saved> {
        if self.children.starting().next().is_some() || self.other.is_some() {
            return None;
        }
        let child = |it: &Child| {
            Some(SavedChild {
                kind: it.kind,
                name: it.name.clone(),
                note: it.note.clone(),
                identity: it.identity,
                output: match &it.output {
                    Some(output) => Some(copy(output)?),
                    None => None,
                },
                end: it.end(),
            })
        };
        let guard = self.guard.as_ref().filter(|it| it.outbox.is_empty());
        Some(Saved {
            args: self.args.clone(),
            binary: high(&self.binary).ok()?,
            guard: guard.and_then(|it| Some((it.identity, copy(&it.socket)?))),
            life: self.life,
            streak: self.streak.count(),
            children: self.children.iter().map(child).collect::<Option<_>>()?,
            kept: self
                .kept
                .iter()
                .map(|(key, file)| Some((key.to_owned(), copy(file)?)))
                .collect::<Option<_>>()?,
        })
        .filter(|saved| saved.guard.is_some())
    }

    /// The new version's own answer, from a process of its own.
    fn is_understood(&self, file: &OwnedFd) -> bool {
        let (Some(null), Some(file)) = (null(), copy(file)) else { return false };
        let argv = ["plimsoll", INIT_WORD, TRY_WORD, &LINK_FD.to_string()].map(OsString::from);
        let mut command = Command::new(argv.to_vec(), notify::environment(), PathBuf::from("/"), null);
        command.program = Some(format!("/proc/self/fd/{}", self.binary.as_raw_fd()).into());
        command.inherit = vec![file];
        command.dies_with_us = true;
        let Ok(child) = spawn::spawn(&command) else { return false };
        let until = Instant::now() + TRY_WITHIN;
        while Instant::now() < until {
            if let Some(exit) = kernel::reap_one(child.identity.pid) {
                return exit == Exit::Code(0);
            }
            // Its end wakes us; the signal stays for the loop.
            let timeout = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
            let _ = poll(&mut [], Some(&timeout));
        }
        let _ = process::signal(&self.roots, child.identity, Signal::KILL);
        false
    }
}

fn null() -> Option<OwnedFd> {
    std::fs::OpenOptions::new().write(true).open("/dev/null").ok().map(OwnedFd::from)
}
