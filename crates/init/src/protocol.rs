//! What guard and init say to each other: packets over a socket pair, some with descriptors.
//!
//! The guard begins with [`ToInit::Hello`] and the versions it speaks; init answers with [`ToGuard::Welcome`] in the
//! newest one that both speak, or with [`ToGuard::Refused`]. Both of these have the same form in every version. Then
//! init hands over what it holds: every kept descriptor, every child, and [`ToGuard::Begin`].

use plimsoll_kernel::Exit;
use plimsoll_kernel::process::Identity;

use crate::wire::{Garbled, Reader, Writer};

pub const OLDEST: u16 = 1;
pub const NEWEST: u16 = 1;
/// No packet is longer; what may be longer (a command with its environment) travels as a file.
pub const PACKET_BYTES_MAX: usize = 4096;
/// Names, notes and reasons are cut or refused beyond this.
pub const TEXT_BYTES_MAX: usize = 1024;

/// What the key of a listening socket begins with: the service manager is asked to hold those, too, so that they outlive
/// init itself. It knows them by the same names, so there is no colon in one.
pub const LISTENER: &str = "listener ";

/// Why a process is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildKind {
    /// A service's instance: outlives the guard.
    Instance,
    /// A check command: of no use to another guard than the one that asked.
    Check,
}

/// From the guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToInit {
    Hello {
        oldest: u16,
        newest: u16,
        version: String,
    },
    /// Start a process. Files: the command, its output's write end, then, as the flags say, the read end, the cgroup's
    /// folder, and the files that move a process into its groups. Answer: `Spawned` or `Failed`.
    Spawn(Spawn),
    /// The guard is done with a child that has ended.
    Forget {
        child: Identity,
    },
    /// Hold this file under this key for the next guard, instead of what was there. File: it.
    Keep {
        key: String,
    },
    Drop {
        key: String,
    },
    /// A decision cycle was completed.
    Fed,
    /// Everything was taken over, and the control socket answers.
    Ready,
    /// A candidate has found everything that it needs and asks for the children.
    Prepared,
    /// It is being stopped for good: no other guard is wanted after this one.
    Stopping,
    /// It ends, on purpose, with this exit code for whoever started us.
    Bye {
        code: u8,
    },
    /// Replace the guard, and then init, by this program. File: it. Answer: `Upgraded` or `NotUpgraded`, where there is
    /// still somebody to tell.
    Upgrade {
        path: String,
    },
    /// Nothing is decided here any more: the state is saved, the listeners are let go.
    Yielded,
    /// The configuration is being read anew, and is read.
    Reloading,
    Reloaded,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spawn {
    /// The guard's own number for this request.
    pub token: u64,
    pub kind: ChildKind,
    /// `reports.7`
    pub name: String,
    /// Given back to the next guard.
    pub note: String,
    pub has_output: bool,
    pub has_folder: bool,
}

/// What a guard is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The only one: the children follow at once.
    Sole,
    /// One that may replace the present one: first it looks whether it could, and says `Prepared`.
    Candidate,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    pub version: u16,
    pub init_pid: i32,
    /// The first guard is 1.
    pub life: u64,
    /// How the last one ended, in words; empty where there was none or it left as planned.
    pub died: String,
    /// The guards before this one ended so quickly that this one is to do only what is needed.
    pub reduced: bool,
    /// Everything is to be stopped.
    pub ending: bool,
    pub role: Role,
    /// How long nobody has guarded by now; 0 where somebody does.
    pub unguarded_ms: u64,
}

/// From init.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToGuard {
    Welcome(Welcome),
    /// We have no version in common.
    Refused {
        oldest: u16,
        newest: u16,
    },
    /// File: what is kept.
    Kept {
        key: String,
    },
    /// That was all that is kept.
    KeptAll,
    /// File, where it has one: the read end of its output.
    Child {
        kind: ChildKind,
        name: String,
        note: String,
        child: Identity,
        end: Option<Exit>,
    },
    Begin,
    Spawned {
        token: u64,
        child: Identity,
    },
    /// `step` is [`plimsoll_kernel::spawn::Step::code`].
    Failed {
        token: u64,
        step: u8,
        errno: i32,
        object: String,
    },
    Exited {
        child: Identity,
        exit: Exit,
    },
    /// A process ended that nobody had asked us to start: the child of a child.
    Orphan,
    /// Another guard stands ready: save the state, let go, and say `Yielded`.
    Yield,
    /// The other guard guards: finish what is in flight and end.
    Leave,
    NotUpgraded {
        why: String,
    },
}

impl ToInit {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = Writer::default();
        match self {
            Self::Hello { oldest, newest, version } => {
                to.u8(1);
                to.u16(*oldest);
                to.u16(*newest);
                to.text(version);
            }
            Self::Spawn(spawn) => {
                to.u8(2);
                to.u64(spawn.token);
                kind(&mut to, spawn.kind);
                to.text(&spawn.name);
                to.text(&spawn.note);
                to.flag(spawn.has_output);
                to.flag(spawn.has_folder);
            }
            Self::Forget { child } => {
                to.u8(3);
                identity(&mut to, *child);
            }
            Self::Keep { key } => {
                to.u8(4);
                to.text(key);
            }
            Self::Drop { key } => {
                to.u8(5);
                to.text(key);
            }
            Self::Fed => to.u8(6),
            Self::Ready => to.u8(7),
            Self::Prepared => to.u8(8),
            Self::Stopping => to.u8(9),
            Self::Bye { code } => {
                to.u8(10);
                to.u8(*code);
            }
            Self::Upgrade { path } => {
                to.u8(11);
                to.text(path);
            }
            Self::Yielded => to.u8(12),
            Self::Reloading => to.u8(13),
            Self::Reloaded => to.u8(14),
        }
        to.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Garbled> {
        let mut from = Reader(bytes);
        let said = match from.u8()? {
            1 => Self::Hello { oldest: from.u16()?, newest: from.u16()?, version: from.text()? },
            2 => Self::Spawn(Spawn {
                token: from.u64()?,
                kind: read_kind(&mut from)?,
                name: from.text()?,
                note: from.text()?,
                has_output: from.flag()?,
                has_folder: from.flag()?,
            }),
            3 => Self::Forget { child: read_identity(&mut from)? },
            4 => Self::Keep { key: from.text()? },
            5 => Self::Drop { key: from.text()? },
            6 => Self::Fed,
            7 => Self::Ready,
            8 => Self::Prepared,
            9 => Self::Stopping,
            10 => Self::Bye { code: from.u8()? },
            11 => Self::Upgrade { path: from.text()? },
            12 => Self::Yielded,
            13 => Self::Reloading,
            14 => Self::Reloaded,
            _ => return Err(Garbled),
        };
        // A later version may have more to say about a greeting.
        if !matches!(said, Self::Hello { .. }) {
            from.end()?;
        }
        Ok(said)
    }
}

impl ToGuard {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = Writer::default();
        match self {
            Self::Welcome(welcome) => {
                to.u8(1);
                to.u16(welcome.version);
                to.i32(welcome.init_pid);
                to.u64(welcome.life);
                to.text(&welcome.died);
                to.flag(welcome.reduced);
                to.flag(welcome.ending);
                to.flag(welcome.role == Role::Candidate);
                to.u64(welcome.unguarded_ms);
            }
            Self::Refused { oldest, newest } => {
                to.u8(2);
                to.u16(*oldest);
                to.u16(*newest);
            }
            Self::Kept { key } => {
                to.u8(3);
                to.text(key);
            }
            Self::Child { kind: of, name, note, child, end } => {
                to.u8(4);
                kind(&mut to, *of);
                to.text(name);
                to.text(note);
                identity(&mut to, *child);
                to.option(*end, exit);
            }
            Self::Begin => to.u8(5),
            Self::Spawned { token, child } => {
                to.u8(6);
                to.u64(*token);
                identity(&mut to, *child);
            }
            Self::Failed { token, step, errno, object } => {
                to.u8(7);
                to.u64(*token);
                to.u8(*step);
                to.i32(*errno);
                to.text(object);
            }
            Self::Exited { child, exit: how } => {
                to.u8(8);
                identity(&mut to, *child);
                exit(&mut to, *how);
            }
            Self::Orphan => to.u8(9),
            Self::Yield => to.u8(10),
            Self::Leave => to.u8(11),
            Self::NotUpgraded { why } => {
                to.u8(12);
                to.text(why);
            }
            Self::KeptAll => to.u8(13),
        }
        to.0
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Garbled> {
        let mut from = Reader(bytes);
        let said = match from.u8()? {
            1 => Self::Welcome(Welcome {
                version: from.u16()?,
                init_pid: from.i32()?,
                life: from.u64()?,
                died: from.text()?,
                reduced: from.flag()?,
                ending: from.flag()?,
                role: if from.flag()? { Role::Candidate } else { Role::Sole },
                unguarded_ms: from.u64()?,
            }),
            2 => Self::Refused { oldest: from.u16()?, newest: from.u16()? },
            3 => Self::Kept { key: from.text()? },
            4 => Self::Child {
                kind: read_kind(&mut from)?,
                name: from.text()?,
                note: from.text()?,
                child: read_identity(&mut from)?,
                end: from.option(read_exit)?,
            },
            5 => Self::Begin,
            6 => Self::Spawned { token: from.u64()?, child: read_identity(&mut from)? },
            7 => Self::Failed {
                token: from.u64()?,
                step: from.u8()?,
                errno: from.i32()?,
                object: from.text()?,
            },
            8 => Self::Exited { child: read_identity(&mut from)?, exit: read_exit(&mut from)? },
            9 => Self::Orphan,
            10 => Self::Yield,
            11 => Self::Leave,
            12 => Self::NotUpgraded { why: from.text()? },
            13 => Self::KeptAll,
            _ => return Err(Garbled),
        };
        if !matches!(said, Self::Welcome(_) | Self::Refused { .. }) {
            from.end()?;
        }
        Ok(said)
    }
}

/// The newest version that both sides speak.
pub(crate) fn common(oldest: u16, newest: u16) -> Option<u16> {
    let version = newest.min(NEWEST);
    (version >= oldest.max(OLDEST)).then_some(version)
}

/// Cut to what a packet takes, between two characters.
pub(crate) fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

pub(crate) fn kind(to: &mut Writer, kind: ChildKind) {
    to.flag(kind == ChildKind::Check);
}

pub(crate) fn read_kind(from: &mut Reader<'_>) -> Result<ChildKind, Garbled> {
    Ok(if from.flag()? { ChildKind::Check } else { ChildKind::Instance })
}

pub(crate) fn identity(to: &mut Writer, identity: Identity) {
    to.i32(identity.pid);
    to.u64(identity.start_time);
}

pub(crate) fn read_identity(from: &mut Reader<'_>) -> Result<Identity, Garbled> {
    Ok(Identity { pid: from.i32()?, start_time: from.u64()? })
}

pub(crate) fn exit(to: &mut Writer, exit: Exit) {
    match exit {
        Exit::Code(code) => {
            to.u8(0);
            to.i32(code);
        }
        Exit::Signal { number, core_dumped } => {
            to.u8(1 + u8::from(core_dumped));
            to.i32(number);
        }
    }
}

pub(crate) fn read_exit(from: &mut Reader<'_>) -> Result<Exit, Garbled> {
    let how = from.u8()?;
    let number = from.i32()?;
    match how {
        0 => Ok(Exit::Code(number)),
        1 | 2 => Ok(Exit::Signal { number, core_dumped: how == 2 }),
        _ => Err(Garbled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHILD: Identity = Identity { pid: 4711, start_time: u64::MAX };

    fn to_init() -> Vec<ToInit> {
        let spawn = Spawn {
            token: 7,
            kind: ChildKind::Check,
            name: "reports.7".to_owned(),
            note: "127.0.0.1:4000".to_owned(),
            has_output: true,
            has_folder: false,
        };
        vec![
            ToInit::Hello { oldest: 1, newest: 9, version: "0.1.0".to_owned() },
            ToInit::Spawn(spawn),
            ToInit::Forget { child: CHILD },
            ToInit::Keep { key: "listener http".to_owned() },
            ToInit::Drop { key: String::new() },
            ToInit::Fed,
            ToInit::Ready,
            ToInit::Prepared,
            ToInit::Stopping,
            ToInit::Bye { code: 70 },
            ToInit::Upgrade { path: "/usr/bin/plimsoll".to_owned() },
            ToInit::Yielded,
            ToInit::Reloading,
            ToInit::Reloaded,
        ]
    }

    fn to_guard() -> Vec<ToGuard> {
        let welcome = Welcome {
            version: 1,
            init_pid: 1,
            life: 3,
            died: "signal 9 (SIGKILL)".to_owned(),
            reduced: true,
            ending: false,
            role: Role::Candidate,
            unguarded_ms: 250,
        };
        let ends = [None, Some(Exit::Code(3)), Some(Exit::Signal { number: 11, core_dumped: true })];
        let child = |end| ToGuard::Child {
            kind: ChildKind::Instance,
            name: "reports.7".to_owned(),
            note: String::new(),
            child: CHILD,
            end,
        };
        let mut all = vec![
            ToGuard::Welcome(welcome),
            ToGuard::Refused { oldest: 2, newest: 3 },
            ToGuard::Kept { key: "lock".to_owned() },
            ToGuard::KeptAll,
            ToGuard::Begin,
            ToGuard::Spawned { token: 1, child: CHILD },
            ToGuard::Failed { token: 1, step: 13, errno: 2, object: "nodee".to_owned() },
            ToGuard::Exited { child: CHILD, exit: Exit::Code(0) },
            ToGuard::Orphan,
            ToGuard::Yield,
            ToGuard::Leave,
            ToGuard::NotUpgraded { why: "it ended".to_owned() },
        ];
        all.extend(ends.map(child));
        all
    }

    #[test]
    fn every_packet_arrives_as_it_was_sent_and_cut_short_not_at_all() {
        for said in to_init() {
            let bytes = said.encode();
            assert_eq!(ToInit::decode(&bytes), Ok(said.clone()));
            assert!((0..bytes.len()).all(|end| ToInit::decode(&bytes[..end]).is_err()), "{said:?}");
        }
        for said in to_guard() {
            let bytes = said.encode();
            assert_eq!(ToGuard::decode(&bytes), Ok(said.clone()));
            assert!((0..bytes.len()).all(|end| ToGuard::decode(&bytes[..end]).is_err()), "{said:?}");
        }
    }

    #[test]
    fn the_longest_texts_fit_into_a_packet() {
        let text = "x".repeat(TEXT_BYTES_MAX);
        let spawn = Spawn {
            token: u64::MAX,
            kind: ChildKind::Check,
            name: text.clone(),
            note: text,
            has_output: true,
            has_folder: true,
        };
        assert!(ToInit::Spawn(spawn).encode().len() <= PACKET_BYTES_MAX);
        assert_eq!(cut(&"ä".repeat(TEXT_BYTES_MAX)).len(), TEXT_BYTES_MAX);
    }

    #[test]
    fn the_newest_common_version_is_spoken_or_none() {
        assert_eq!(common(1, NEWEST + 5), Some(NEWEST));
        assert_eq!(common(OLDEST, OLDEST), Some(OLDEST));
        assert_eq!(common(NEWEST + 1, NEWEST + 2), None);
        assert_eq!(common(0, OLDEST - 1), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange_to_be_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(said) = ToInit::decode(&bytes) {
                prop_assert_eq!(ToInit::decode(&said.encode()), Ok(said));
            }
            if let Ok(said) = ToGuard::decode(&bytes) {
                prop_assert_eq!(ToGuard::decode(&said.encode()), Ok(said));
            }
        }
    }
}
