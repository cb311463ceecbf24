//! What init hands to a guard at its start: what the last one left, and the way back to init.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};

use jiff::{SignedDuration, Timestamp};
use plimsoll_init::protocol::{ChildKind, Role, ToInit, Welcome};
use plimsoll_init::{Held, Link, LinkError, Told};
use rustix::fs::{MemfdFlags, memfd_create};

/// What is kept with init. A key is in the hands of one part of the guard.
pub(crate) const KEY_LOCK: &str = "lock";
pub(crate) const KEY_STATE: &str = "state";
pub(crate) const KEY_CONTROL: &str = "control";
pub const KEY_CONFIG: &str = "config";
/// No text that is kept is longer.
const TEXT_BYTES_MAX: u64 = 4 << 20;

#[derive(Debug)]
pub struct Heritage {
    link: Link,
    welcome: Welcome,
    greeted: Timestamp,
    kept: BTreeMap<String, OwnedFd>,
    children: Vec<Held>,
}

impl Heritage {
    /// Greets init and takes what it keeps. The children come with [`Heritage::begin`].
    pub fn greet(version: &str) -> Result<Self, LinkError> {
        let link = Link::inherited()?;
        link.hello(version)?;
        let (mut welcome, mut kept) = (None, BTreeMap::new());
        loop {
            match link.receive(true)? {
                Some(Told::Welcome(told)) => welcome = Some(told),
                Some(Told::Kept { key, file }) => _ = kept.insert(key, file),
                Some(Told::KeptAll) => break,
                Some(
                    Told::Child(_)
                    | Told::Begin
                    | Told::Exited { .. }
                    | Told::Orphan
                    | Told::Yield
                    | Told::Leave
                    | Told::NotUpgraded { .. },
                )
                | None => {}
            }
        }
        let welcome = welcome.ok_or(LinkError::Garbled)?;
        Ok(Self { link, welcome, greeted: Timestamp::now(), kept, children: Vec::new() })
    }

    /// Takes the children over. One that is to replace another guard waits here until that one has let go.
    pub fn begin(&mut self) -> Result<(), LinkError> {
        if self.welcome.role == Role::Candidate {
            self.link.say(&ToInit::Prepared)?;
        }
        loop {
            match self.link.receive(true)? {
                Some(Told::Child(held)) => self.children.push(held),
                Some(Told::Begin) => return Ok(()),
                // The end of one that was told as running a moment ago.
                Some(Told::Exited { child, exit }) => {
                    let ended = self.children.iter_mut().find(|it| it.identity == child);
                    if let Some(ended) = ended {
                        ended.end = Some(exit);
                    }
                }
                Some(
                    Told::Welcome(_)
                    | Told::Kept { .. }
                    | Told::KeptAll
                    | Told::Orphan
                    | Told::Yield
                    | Told::Leave
                    | Told::NotUpgraded { .. },
                )
                | None => {}
            }
        }
    }

    pub const fn link(&self) -> &Link {
        &self.link
    }

    pub const fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// When the last guard ended, where it was not replaced as planned.
    pub(crate) fn ended(&self) -> Timestamp {
        let before = i64::try_from(self.welcome.unguarded_ms).unwrap_or(i64::MAX);
        self.greeted.checked_sub(SignedDuration::from_millis(before)).unwrap_or(self.greeted)
    }

    pub fn take(&mut self, key: &str) -> Option<OwnedFd> {
        self.kept.remove(key)
    }

    /// Everything whose key begins like this, with the rest of the key.
    pub fn take_all(&mut self, beginning: &str) -> Vec<(String, OwnedFd)> {
        let of = |key: &String| key.strip_prefix(beginning).map(str::to_owned);
        let keys: Vec<String> = self.kept.keys().filter(|key| of(key).is_some()).cloned().collect();
        let take = |key: String| Some((of(&key)?, self.kept.remove(&key)?));
        keys.into_iter().filter_map(take).collect()
    }

    /// A text that an earlier guard kept.
    pub fn take_text(&mut self, key: &str) -> Option<String> {
        let mut file = File::from(self.take(key)?);
        let mut text = String::new();
        file.rewind().ok()?;
        file.take(TEXT_BYTES_MAX).read_to_string(&mut text).ok()?;
        Some(text)
    }

    pub(crate) fn instances(&self) -> impl Iterator<Item = &Held> {
        self.children.iter().filter(|it| it.kind == ChildKind::Instance)
    }

    pub(crate) fn take_children(&mut self) -> Vec<Held> {
        std::mem::take(&mut self.children)
    }
}

/// Has init keep a text for the next guard. What cannot be kept is done without.
pub fn keep_text(link: &Link, key: &str, text: &str) {
    let file = memfd_create("plimsoll-kept", MemfdFlags::CLOEXEC).map(File::from);
    let written = file.map_err(std::io::Error::from).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        Ok(file)
    });
    if let Ok(file) = written {
        let _ = link.keep(key, file.as_fd());
    }
}
