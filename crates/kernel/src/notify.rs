//! The kernel's own wake-ups about a group: what polling would see too late.
//!
//! All descriptors are non-blocking and close-on-exec, and can be watched for readability.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::cgroup::{Group, Version};
use crate::{Error, Result, text};

/// v2: one inotify instance for the `memory.events` of any number of groups. The kernel tells that a count moved and
/// not which; [`Group::oom`] has the counts. It sends at most one such event in 10 ms for each group.
#[derive(Debug)]
pub struct GroupEvents {
    inotify: OwnedFd,
}

/// Stands for one group in a [`GroupEvents`]; never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Watch(i32);

/// What [`GroupEvents::drain`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Groups whose counts moved, each once.
    pub moved: Vec<Watch>,
    /// The queue ran over: look at every group.
    pub lost: bool,
}

impl GroupEvents {
    pub fn new() -> Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|error| Error::call("make an inotify instance", error))?;
        Ok(Self { inotify })
    }

    /// To be taken back by [`Self::remove`], before or after the group is removed: the kernel does not end a watch with
    /// its group (seen on 6.1), and the file's inode stays in memory for it.
    pub fn add(&self, group: &Group) -> Result<Watch> {
        if group.version() == Version::V1 {
            return Err(Error::Unsupported { what: "watching memory.events", on: "cgroup v1" });
        }
        let path = group.file("memory.events");
        let watch = inotify::add_watch(&self.inotify, &path, WatchFlags::MODIFY);
        watch.map(Watch).map_err(|error| Error::file("watch", path, error))
    }

    /// Fine to call twice.
    pub fn remove(&self, watch: Watch) -> Result<()> {
        match inotify::remove_watch(&self.inotify, watch.0) {
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(error) => Err(Error::call("remove an inotify watch", error)),
        }
    }

    /// All that has come in. Does not block.
    pub fn drain(&self) -> Result<Drained> {
        use rustix::fs::inotify::ReadFlags;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        let mut drained = Drained::default();
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(Error::call("read the inotify instance", error)),
            };
            let (flags, watch) = (event.events(), Watch(event.wd()));
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                drained.lost = true;
            } else if flags.contains(ReadFlags::MODIFY) {
                drained.moved.push(watch);
            }
        }
        drained.moved.sort_unstable();
        drained.moved.dedup();
        Ok(drained)
    }
}

impl AsFd for GroupEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// For event loops that still ask for it.
impl AsRawFd for GroupEvents {
    fn as_raw_fd(&self) -> RawFd {
        self.inotify.as_raw_fd()
    }
}

/// v1: an eventfd that the kernel raises. Ends with the group, and is then readable for good; disarmed by drop.
#[derive(Debug)]
pub struct Signal {
    eventfd: OwnedFd,
    // The kernel keeps its own reference, but only from here can it be told that nobody listens any more.
    _watched: OwnedFd,
}

impl Signal {
    /// Raised whenever the use of the group (page cache included) crosses `bytes`, upwards or downwards. A group can
    /// have several.
    pub fn at_usage(group: &Group, bytes: u64) -> Result<Self> {
        Self::arm(group, "memory.usage_in_bytes", &bytes.to_string())
    }

    /// Raised when the group runs into its wall and reclaim does not help, before the kernel has chosen what to kill.
    pub fn on_oom(group: &Group) -> Result<Self> {
        Self::arm(group, "memory.oom_control", "")
    }

    fn arm(group: &Group, name: &str, argument: &str) -> Result<Self> {
        if group.version() == Version::V2 {
            return Err(Error::Unsupported { what: "an eventfd on memory", on: "cgroup v2" });
        }
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| Error::call("make an eventfd", error))?;
        let watched = open(&group.file(name))?;
        let order = format!("{} {} {argument}", eventfd.as_raw_fd(), watched.as_raw_fd());
        text::write(&group.file("cgroup.event_control"), &order)?;
        Ok(Self { eventfd, _watched: watched })
    }

    /// How often it was raised since the last call; 0 when it was not. Does not block.
    pub fn drain(&self) -> Result<u64> {
        let mut count = [0; 8];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.eventfd, &mut count)) {
            Ok(_) => Ok(u64::from_ne_bytes(count)),
            Err(Errno::AGAIN) => Ok(0),
            Err(error) => Err(Error::call("read an eventfd", error)),
        }
    }
}

impl AsFd for Signal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

impl AsRawFd for Signal {
    fn as_raw_fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }
}

fn open(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Error::file("open", path, error))
}
