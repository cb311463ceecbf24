//! The guard's end of the socket to init.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plimsoll_kernel::process::Identity;
use plimsoll_kernel::spawn::{Child, Command, SpawnError, Step};
use plimsoll_kernel::{Exit, inherited, receive_packet, send_packet, spawn};
use rustix::io::Errno;

use crate::command;
use crate::init::LINK_FD;
use crate::protocol::{
    ChildKind, NEWEST, OLDEST, PACKET_BYTES_MAX, Spawn, TEXT_BYTES_MAX, ToGuard, ToInit, Welcome,
};

/// Beyond what the command may take; then init is not there or stands still.
const SPAWN_SLACK: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("init is not there: descriptor {LINK_FD} is not a socket to it")]
    Missing,
    #[error("init speaks versions {oldest} to {newest} of the protocol, and this guard {OLDEST} to {NEWEST}")]
    Refused { oldest: u16, newest: u16 },
    #[error("init said what is not understood")]
    Garbled,
    #[error("init is gone")]
    Gone,
    #[error("socket to init: {0}")]
    Io(io::Error),
}

/// What init says, as the guard needs it.
#[derive(Debug)]
pub enum Told {
    Welcome(Welcome),
    Kept { key: String, file: OwnedFd },
    KeptAll,
    Child(Held),
    Begin,
    Exited { child: Identity, exit: Exit },
    Orphan,
    Yield,
    Leave,
    NotUpgraded { why: String },
}

/// A child that was started for an earlier guard.
#[derive(Debug)]
pub struct Held {
    pub kind: ChildKind,
    pub name: String,
    pub note: String,
    pub identity: Identity,
    pub end: Option<Exit>,
    pub output: Option<OwnedFd>,
}

impl Held {
    pub fn is_instance(&self) -> bool {
        self.kind == ChildKind::Instance
    }
}

type Answer = Result<Child, SpawnError>;

/// Cheap to clone. Any thread may send; one thread receives, with [`Link::receive`].
#[derive(Clone, Debug)]
pub struct Link {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    socket: OwnedFd,
    next_token: AtomicU64,
    waiting: Mutex<HashMap<u64, SyncSender<Answer>>>,
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.socket.as_fd()
    }
}

impl Link {
    /// The socket that init left at its number. To be called once, at the start.
    pub fn inherited() -> Result<Self, LinkError> {
        let socket = inherited(LINK_FD).ok_or(LinkError::Missing)?;
        rustix::net::sockopt::socket_type(&socket).map_err(|_| LinkError::Missing)?;
        Ok(Self::over(socket))
    }

    fn over(socket: OwnedFd) -> Self {
        let inner = Inner { socket, next_token: AtomicU64::new(1), waiting: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    pub fn hello(&self, version: &str) -> Result<(), LinkError> {
        self.say(&ToInit::Hello { oldest: OLDEST, newest: NEWEST, version: version.to_owned() })
    }

    /// What is said here is short, and init always reads: waiting for it is no risk.
    pub fn say(&self, said: &ToInit) -> Result<(), LinkError> {
        self.send(said, &[])
    }

    /// Has init hold a file for the next guard.
    pub fn keep(&self, key: &str, file: impl AsFd) -> Result<(), LinkError> {
        self.send(&ToInit::Keep { key: key.to_owned() }, &[file.as_fd()])
    }

    pub fn upgrade(&self, path: &str, binary: impl AsFd) -> Result<(), LinkError> {
        self.send(&ToInit::Upgrade { path: path.to_owned() }, &[binary.as_fd()])
    }

    fn send(&self, said: &ToInit, files: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        match send_packet(&self.inner.socket, &said.encode(), files, true) {
            Ok(()) => Ok(()),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(LinkError::Gone),
            Err(errno) => Err(LinkError::Io(errno.into())),
        }
    }

    /// Has init start the command, and waits for it to run. Blocks as [`spawn::spawn`] does. `output` is the read end of
    /// its output, for the next guard. Somebody has to [`Link::receive`] meanwhile.
    pub fn spawn(
        &self,
        kind: ChildKind,
        name: &str,
        note: &str,
        command: &Command,
        output: Option<BorrowedFd<'_>>,
    ) -> Answer {
        let failed = |step, errno| SpawnError { step, errno, object: name.into() };
        let mut found;
        let mut ready = command;
        if command.program.is_none() {
            // Looked for here: a dead file system in PATH must not keep init waiting.
            found = shallow(command).ok_or_else(|| failed(Step::Prepare, Errno::MFILE))?;
            found.program = Some(spawn::find(command)?);
            ready = &found;
        }
        let errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        let file = command::write(ready).map_err(|error| failed(Step::Prepare, errno(error)))?;
        let token = self.inner.next_token.fetch_add(1, Ordering::Relaxed);
        let request = Spawn {
            token,
            kind,
            name: name.to_owned(),
            note: note.to_owned(),
            has_output: output.is_some(),
            has_folder: command.join.folder.is_some(),
        };
        if name.len() > TEXT_BYTES_MAX || note.len() > TEXT_BYTES_MAX {
            return Err(failed(Step::Prepare, Errno::NAMETOOLONG));
        }
        let mut files = vec![file.as_fd(), command.output.as_fd()];
        files.extend(output);
        files.extend(command.join.folder.as_ref().map(AsFd::as_fd));
        files.extend(command.join.files.iter().map(AsFd::as_fd));
        let (answer, answered) = sync_channel(1);
        self.waiting().insert(token, answer);
        let sent = self.send(&ToInit::Spawn(request), &files);
        let outcome = sent.ok().and_then(|()| answered.recv_timeout(command.within + SPAWN_SLACK).ok());
        self.waiting().remove(&token);
        outcome.unwrap_or_else(|| Err(failed(Step::Wait, Errno::TIMEDOUT)))
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, SyncSender<Answer>>> {
        self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next thing that init says; `None` where there is nothing at the moment and `may_block` is not set. Answers to
    /// [`Link::spawn`] go to whoever waits for them.
    pub fn receive(&self, may_block: bool) -> Result<Option<Told>, LinkError> {
        loop {
            let mut buffer = [0; PACKET_BYTES_MAX];
            let (length, mut files) = match receive_packet(&self.inner.socket, &mut buffer, may_block) {
                Ok((0, _)) => return Err(LinkError::Gone),
                Ok(received) => received,
                Err(Errno::AGAIN) => return Ok(None),
                Err(errno) => return Err(LinkError::Io(errno.into())),
            };
            let said = ToGuard::decode(buffer.get(..length).unwrap_or_default());
            match said.map_err(|_| LinkError::Garbled)? {
                ToGuard::Welcome(welcome) => return Ok(Some(Told::Welcome(welcome))),
                ToGuard::Refused { oldest, newest } => return Err(LinkError::Refused { oldest, newest }),
                ToGuard::Kept { key } => {
                    if let Some(file) = files.pop() {
                        return Ok(Some(Told::Kept { key, file }));
                    }
                }
                ToGuard::Child { kind, name, note, child, end } => {
                    let output = files.pop();
                    return Ok(Some(Told::Child(Held { kind, name, note, identity: child, end, output })));
                }
                ToGuard::KeptAll => return Ok(Some(Told::KeptAll)),
                ToGuard::Begin => return Ok(Some(Told::Begin)),
                ToGuard::Spawned { token, child } => self.answer(token, Ok(Child { identity: child })),
                ToGuard::Failed { token, step, errno, object } => {
                    let step = Step::from_code(step).unwrap_or(Step::Wait);
                    let errno = Errno::from_raw_os_error(errno);
                    self.answer(token, Err(SpawnError { step, errno, object: object.into() }));
                }
                ToGuard::Exited { child, exit } => return Ok(Some(Told::Exited { child, exit })),
                ToGuard::Orphan => return Ok(Some(Told::Orphan)),
                ToGuard::Yield => return Ok(Some(Told::Yield)),
                ToGuard::Leave => return Ok(Some(Told::Leave)),
                ToGuard::NotUpgraded { why } => return Ok(Some(Told::NotUpgraded { why })),
            }
        }
    }

    fn answer(&self, token: u64, answer: Answer) {
        if let Some(waiting) = self.waiting().remove(&token) {
            // Who asked may have given up.
            let _ = waiting.try_send(answer);
        }
    }
}

/// The command without its place in a group, which travels beside it.
fn shallow(command: &Command) -> Option<Command> {
    let output = command.output.try_clone().ok()?;
    Some(Command {
        ids: command.ids.clone(),
        nofile: command.nofile,
        umask: command.umask,
        no_new_privs: command.no_new_privs,
        oom_score_adj: command.oom_score_adj,
        within: command.within,
        ..Command::new(command.argv.clone(), command.env.clone(), command.cwd.clone(), output)
    })
}
