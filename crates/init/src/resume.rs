//! What init takes along when it becomes its own next version: everything, in a file of memory. The descriptors stay
//! open over the `exec` and are named by their numbers.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};

use plimsoll_kernel::process::Identity;
use plimsoll_kernel::{Exit, inherited};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::FdFlags;

use crate::protocol::{ChildKind, exit, identity, kind, read_exit, read_identity, read_kind};
use crate::wire::{Garbled, Reader, Writer};

/// Of this form. One that reads an older one has to know it still; a newer one is refused before the exec.
const FORM: u16 = 1;
const BYTES_MAX: u64 = 16 << 20;

/// A child that is not on its way any more.
#[derive(Debug)]
pub(crate) struct SavedChild {
    pub(crate) kind: ChildKind,
    pub(crate) name: String,
    pub(crate) note: String,
    pub(crate) identity: Identity,
    pub(crate) output: Option<OwnedFd>,
    pub(crate) end: Option<Exit>,
}

#[derive(Debug)]
pub(crate) struct Saved {
    pub(crate) args: Vec<OsString>,
    pub(crate) binary: OwnedFd,
    pub(crate) guard: Option<(Identity, OwnedFd)>,
    pub(crate) life: u64,
    pub(crate) streak: u32,
    pub(crate) children: Vec<SavedChild>,
    pub(crate) kept: Vec<(String, OwnedFd)>,
}

impl Saved {
    /// The file, which like all that it names stays open over an exec.
    pub(crate) fn write(&self) -> std::io::Result<OwnedFd> {
        let mut file = File::from(memfd_create("plimsoll-init", MemfdFlags::empty())?);
        file.write_all(&self.encode())?;
        file.rewind()?;
        for fd in self.files() {
            rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
        }
        Ok(file.into())
    }

    /// For when there was no exec after all.
    pub(crate) fn close_on_exec(&self) {
        for fd in self.files() {
            let _ = rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC);
        }
    }

    fn files(&self) -> impl Iterator<Item = &OwnedFd> {
        let guard = self.guard.iter().map(|(_, socket)| socket);
        let outputs = self.children.iter().filter_map(|child| child.output.as_ref());
        let kept = self.kept.iter().map(|(_, file)| file);
        std::iter::once(&self.binary).chain(guard).chain(outputs).chain(kept)
    }

    fn encode(&self) -> Vec<u8> {
        let mut to = Writer::default();
        to.u16(FORM);
        to.count(self.args.len());
        self.args.iter().for_each(|arg| to.os(arg));
        to.i32(self.binary.as_raw_fd());
        to.option(self.guard.as_ref(), |to, (guard, socket)| {
            identity(to, *guard);
            to.i32(socket.as_raw_fd());
        });
        to.u64(self.life);
        to.u64(u64::from(self.streak));
        to.count(self.children.len());
        for child in &self.children {
            kind(&mut to, child.kind);
            to.text(&child.name);
            to.text(&child.note);
            identity(&mut to, child.identity);
            to.option(child.output.as_ref(), |to, output| to.i32(output.as_raw_fd()));
            to.option(child.end, exit);
        }
        to.count(self.kept.len());
        for (key, file) in &self.kept {
            to.text(key);
            to.i32(file.as_raw_fd());
        }
        to.0
    }

    /// What the file says, with the descriptors that it names taken over; to be called once.
    pub(crate) fn read(file: OwnedFd) -> Result<Self, String> {
        Self::decode(&contents(file)?, &mut |number| inherited(number).ok_or(Garbled))
            .map_err(|Garbled| not_understood())
    }

    /// Whether this version understands the file, without touching what it names.
    pub(crate) fn try_read(file: OwnedFd) -> Result<(), String> {
        let null = || File::open("/dev/null").map(OwnedFd::from).map_err(|_| Garbled);
        Self::decode(&contents(file)?, &mut |_| null()).map(drop).map_err(|Garbled| not_understood())
    }

    fn decode(bytes: &[u8], take: &mut dyn FnMut(i32) -> Result<OwnedFd, Garbled>) -> Result<Self, Garbled> {
        let mut from = Reader(bytes);
        if from.u16()? != FORM {
            return Err(Garbled);
        }
        let args = (0..from.count()?).map(|_| from.os()).collect::<Result<_, _>>()?;
        let binary = take(from.i32()?)?;
        let guard = from.option(|from| Ok((read_identity(from)?, take(from.i32()?)?)))?;
        let life = from.u64()?;
        let streak = u32::try_from(from.u64()?).map_err(|_| Garbled)?;
        let children = (0..from.count()?)
            .map(|_| {
                Ok(SavedChild {
                    kind: read_kind(&mut from)?,
                    name: from.text()?,
                    note: from.text()?,
                    identity: read_identity(&mut from)?,
                    output: from.option(|from| take(from.i32()?))?,
                    end: from.option(read_exit)?,
                })
            })
            .collect::<Result<_, Garbled>>()?;
        let kept = (0..from.count()?)
            .map(|_| Ok((from.text()?, take(from.i32()?)?)))
            .collect::<Result<_, Garbled>>()?;
        from.end()?;
        Ok(Self { args, binary, guard, life, streak, children, kept })
    }
}

fn contents(file: OwnedFd) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut file = File::from(file);
    let read = file.rewind().and_then(|()| file.take(BYTES_MAX).read_to_end(&mut bytes));
    read.map_err(|error| format!("read what the last version left: {error}"))?;
    Ok(bytes)
}

fn not_understood() -> String {
    "what the running version left is not understood by this one".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    fn saved() -> Saved {
        let child = |end| SavedChild {
            kind: ChildKind::Instance,
            name: "reports.7".to_owned(),
            note: "127.0.0.1:4000".to_owned(),
            identity: Identity { pid: 10, start_time: 99 },
            output: Some(null()),
            end,
        };
        Saved {
            args: vec!["run".into(), "my.toml".into()],
            binary: null(),
            guard: Some((Identity { pid: 9, start_time: 98 }, null())),
            life: 3,
            streak: 1,
            children: vec![child(None), child(Some(Exit::Code(1)))],
            kept: vec![("lock".to_owned(), null())],
        }
    }

    #[test]
    fn everything_arrives_in_the_next_version() {
        let sent = saved();
        let file = sent.write().unwrap();
        assert_eq!(Saved::try_read(file.try_clone().unwrap()), Ok(()));
        let read = Saved::decode(&contents(file).unwrap(), &mut |_| Ok(null())).unwrap();
        assert_eq!((&read.args, read.life, read.streak), (&sent.args, 3, 1));
        assert_eq!(read.guard.unwrap().0, sent.guard.unwrap().0);
        let facts =
            |it: &SavedChild| (it.name.clone(), it.note.clone(), it.identity, it.output.is_some(), it.end);
        assert_eq!(
            read.children.iter().map(facts).collect::<Vec<_>>(),
            sent.children.iter().map(facts).collect::<Vec<_>>()
        );
        assert_eq!(read.kept[0].0, "lock");
    }

    #[test]
    fn another_form_is_refused_and_so_is_a_torn_one() {
        let bytes = saved().encode();
        for end in 0..bytes.len() {
            assert!(Saved::decode(&bytes[..end], &mut |_| Ok(null())).is_err());
        }
        let mut newer = bytes;
        newer[0] += 1;
        assert!(Saved::decode(&newer, &mut |_| Ok(null())).is_err());
    }
}
