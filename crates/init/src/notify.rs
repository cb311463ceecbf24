//! What the service manager is told, and what it hands us: `sd_notify` and socket activation, by their documents.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use plimsoll_kernel::{inherited, send_packet};
use rustix::time::{ClockId, clock_gettime};

/// Ours alone: no guard and no service may speak for us.
const OWN_VARIABLES: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];
/// The first descriptor that a manager hands over.
const LISTEN_FIRST: i32 = 3;
const LISTEN_MAX: i32 = 16;

/// The environment of a guard.
pub(crate) fn environment() -> Vec<(OsString, OsString)> {
    std::env::vars_os().filter(|(key, _)| OWN_VARIABLES.iter().all(|own| key != own)).collect()
}

#[derive(Debug)]
pub(crate) struct Notifier {
    socket: Option<UnixDatagram>,
    /// Half of what the manager waits for.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Silent where nobody listens.
    pub(crate) fn from_environment() -> Self {
        let to = std::env::var_os("NOTIFY_SOCKET");
        let socket = to.and_then(|to| connected(&address(&to)?));
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog =
            number("WATCHDOG_USEC").filter(|_| ours).map(|micros| Duration::from_micros(micros) / 2);
        Self { socket, watchdog }
    }

    pub(crate) fn ready(&self, guard: i32) {
        self.say(&format!("READY=1\nSTATUS=guarding; the guard is process {guard}"));
    }

    pub(crate) fn status(&self, status: &str) {
        self.say(&format!("STATUS={status}"));
    }

    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec / 1000);
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    pub(crate) fn reloaded(&self) {
        self.say("READY=1");
    }

    pub(crate) fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// How often [`Notifier::alive`] is to be said, if at all.
    pub(crate) const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    pub(crate) fn alive(&self) {
        self.say("WATCHDOG=1");
    }

    /// Has the manager hold a listening socket under this name, and hand it to the next init should this one be killed.
    /// It knows one that it holds already.
    pub(crate) fn store(&self, name: &str, listener: &OwnedFd) {
        if let Some(socket) = &self.socket {
            let what = format!("FDSTORE=1\nFDNAME={name}");
            // Without room in its store (`FileDescriptorStoreMax=`) it is bound anew.
            let _ = send_packet(socket, what.as_bytes(), &[listener.as_fd()], false);
        }
    }

    /// Or its port would go on taking connections that nobody accepts.
    pub(crate) fn unstore(&self, name: &str) {
        self.say(&format!("FDSTOREREMOVE=1\nFDNAME={name}"));
    }

    fn say(&self, what: &str) {
        if let Some(socket) = &self.socket {
            // A manager that is gone, or that does not read, must not hold us up.
            let _ = send_packet(socket, what.as_bytes(), &[], false);
        }
    }
}

fn connected(to: &SocketAddr) -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect_addr(to).ok()?;
    Some(socket)
}

fn address(path: &OsStr) -> Option<SocketAddr> {
    match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
        [b'/', ..] => SocketAddr::from_pathname(path).ok(),
        _ => None,
    }
}

/// A socket that the service manager listens on for us.
#[derive(Debug)]
pub struct Listening {
    pub socket: OwnedFd,
    /// `FileDescriptorName=`, where it has one.
    pub name: String,
}

/// What the service manager handed over. To be called once, at the start.
pub(crate) fn sockets() -> Vec<Listening> {
    let ours = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    let count = std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse::<i32>().ok());
    let Some(count) = count.filter(|_| ours) else { return Vec::new() };
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let numbers = LISTEN_FIRST..LISTEN_FIRST + count.clamp(0, LISTEN_MAX);
    let socket = |number| {
        let name = names.next().unwrap_or_default().to_owned();
        inherited(number).map(|socket| Listening { socket, name })
    };
    numbers.filter_map(socket).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_told_at_a_path_and_at_a_name_without_one() {
        for name in ["@plimsoll-test-notify", ""] {
            let folder = std::env::temp_dir().join(format!("plimsoll-notify-{}", std::process::id()));
            let path = if name.is_empty() { folder.as_os_str().to_owned() } else { OsString::from(name) };
            let to = address(&path).unwrap();
            let manager = UnixDatagram::bind_addr(&to).unwrap();
            let notifier = Notifier { socket: connected(&to), watchdog: None };
            notifier.ready(42);
            let mut said = [0; 256];
            let length = manager.recv(&mut said).unwrap();
            assert!(said[..length].starts_with(b"READY=1\nSTATUS="));
            let _ = std::fs::remove_file(&folder);
        }
        assert!(address(OsStr::new("relative")).is_none());
    }

    #[test]
    fn a_guard_inherits_nothing_that_speaks_for_us() {
        assert!(environment().iter().all(|(key, _)| OWN_VARIABLES.iter().all(|own| key != own)));
    }
}
