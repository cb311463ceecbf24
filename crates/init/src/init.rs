//! The whole of init's life: one loop that waits for signals, for what guards say and for children on their way.
//!
//! It starts a guard and starts another when that one ends, keeps what guards ask it to keep, starts and reaps what
//! they ask it to start, and hands all of it to the next one. What it does not do: read a configuration, know what a
//! service is, choose between two instances, write a file.

mod guard;
mod last_resort;
mod prepare;
mod upgrade;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use plimsoll_kernel::process::Signal;
use plimsoll_kernel::spawn::{self, Command, SpawnError, Step};
use plimsoll_kernel::{self as kernel, Exit, Roots, Signals, reap_next, receive_packet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::children::{Born, Child, Children, Ended, State};
use crate::kept::Kept;
use crate::notify::{self, Notifier};
use crate::protocol::{self, PACKET_BYTES_MAX, Role, Spawn, ToGuard, ToInit, Welcome};
use crate::resume::Saved;
use crate::streak::Streak;
use crate::watchdog::{self, LOOK_EVERY};
use crate::{command, wire};
use guard::Guard;
use prepare::high;
use upgrade::{Stage, Upgrade};

/// The hidden words by which the binary becomes one of us.
pub const INIT_WORD: &str = "run-init";
pub const GUARD_WORD: &str = "run-guard";
/// Before the number of what an earlier version left, and before the number of a file to be looked at only.
pub const RESUME_WORD: &str = "--resume";
pub const TRY_WORD: &str = "--try";
/// The guard's descriptor to us.
pub const LINK_FD: i32 = 3;

/// Packets taken from one guard before the others are looked at.
const PACKETS_AT_ONCE: usize = 256;
/// While everything is being stopped, so many guards may fail at it before we do it ourselves.
const ENDING_TRIES: u32 = 3;
/// Exit codes of a guard that says why it cannot begin; others are accidents.
const SAID_CODES: std::ops::RangeInclusive<i32> = 0..=70;
const INTERNAL: u8 = 70;

#[derive(Debug)]
struct Init {
    /// What `plimsoll` was called with, for every guard.
    args: Vec<OsString>,
    /// The program, open: it may be deleted or replaced on the disk.
    binary: OwnedFd,
    roots: Roots,
    signals: Signals,
    children: Children,
    kept: Kept,
    guard: Option<Guard>,
    /// A candidate, or one that was replaced.
    other: Option<Guard>,
    upgrade: Option<Upgrade>,
    /// The guard is of a version that we have yet to become.
    follow_due: bool,
    life: u64,
    /// A guard has got to guarding; until then one that says why it cannot begin is the end of us, too.
    has_guarded: bool,
    streak: Streak,
    died: String,
    /// When nobody guarded any more, until somebody does.
    unguarded_since: Option<Instant>,
    start_at: Option<Instant>,
    ending: bool,
    ending_failures: u32,
    stopping_since: Option<Instant>,
    looked: Instant,
    /// When what only a beginning needed is given back: ours, or that of the last child.
    trim_at: Option<Instant>,
    told_alive: Instant,
    notifier: Notifier,
    code: Option<u8>,
}

/// Runs until everything is stopped; the exit code for whoever started us. `words` are those behind [`INIT_WORD`].
pub fn run(words: &[OsString]) -> u8 {
    let number = |word: Option<&OsString>| word.and_then(|it| it.to_str()?.parse().ok()).unwrap_or(-1);
    let made = match words {
        [word, file, ..] if word == TRY_WORD => {
            let file = kernel::inherited(number(Some(file))).ok_or_else(|| "no such file".to_owned());
            return u8::from(file.and_then(Saved::try_read).is_err());
        }
        [word, file, ..] if word == RESUME_WORD => Init::resume(number(Some(file))),
        args => Init::begin(args.to_vec()),
    };
    match made {
        Ok(mut init) => init.run(),
        Err(why) => {
            say(&why);
            INTERNAL
        }
    }
}

impl Init {
    /// With what the service manager handed over, which it does once in the life of the process.
    fn begin(args: Vec<OsString>) -> Result<Self, String> {
        let mut init = Self::new(args)?;
        for notify::Listening { socket, name } in notify::sockets() {
            let ours = name.starts_with(protocol::LISTENER);
            let key = if ours { name } else { format!("activated {name} {}", socket.as_raw_fd()) };
            init.kept.keep(key, socket);
        }
        Ok(init)
    }

    fn new(args: Vec<OsString>) -> Result<Self, String> {
        let signals = prepare::process()?;
        let binary = rustix::fs::open(
            "/proc/self/exe",
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        let binary = binary.map_err(|error| format!("open our own program: {error}"))?;
        Ok(Self {
            args,
            binary: high(&binary)?,
            roots: Roots::default(),
            signals,
            children: Children::default(),
            kept: Kept::default(),
            guard: None,
            other: None,
            upgrade: None,
            follow_due: false,
            life: 0,
            has_guarded: false,
            streak: Streak::default(),
            died: String::new(),
            unguarded_since: None,
            start_at: Some(Instant::now()),
            ending: false,
            ending_failures: 0,
            stopping_since: None,
            looked: Instant::now(),
            trim_at: Some(Instant::now() + LOOK_EVERY),
            told_alive: Instant::now(),
            notifier: Notifier::from_environment(),
            code: None,
        })
    }

    fn run(&mut self) -> u8 {
        loop {
            self.wait();
            let someone_ended = self.take_signals();
            self.hear();
            self.tell_born();
            let now = Instant::now();
            // To ask costs the kernel a walk over all children; now and then it is done without having been told.
            if someone_ended || now >= self.looked + LOOK_EVERY {
                self.reap();
            }
            self.due(now);
            if let Some(code) = self.over() {
                return code;
            }
        }
    }

    fn over(&self) -> Option<u8> {
        let code = self.code?;
        (self.guard.is_none() && self.other.is_none()).then_some(code)
    }

    // What wakes us.

    fn wait(&self) {
        let mut wanted = vec![PollFd::new(&self.signals, PollFlags::IN)];
        for guard in self.guards() {
            if !guard.silent {
                let more = if guard.outbox.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
                wanted.push(PollFd::new(&guard.socket, PollFlags::IN | more));
            }
        }
        wanted.extend(self.children.starting().map(|it| PollFd::new(it.outcome_fd(), PollFlags::IN)));
        let left = self.next_due().saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        // Interrupted or short of memory: everything is looked at all the same.
        let _ = poll(&mut wanted, Some(&timeout));
    }

    fn guards(&self) -> impl Iterator<Item = &Guard> {
        self.guard.iter().chain(&self.other)
    }

    fn next_due(&self) -> Instant {
        let starting = self.children.starting().map(kernel::spawn::Pending::until);
        let alive = self.notifier.watchdog().map(|every| self.told_alive + every);
        let upgrade = self.upgrade.as_ref().map(|it| it.until);
        let all = self.start_at.into_iter().chain(starting).chain(alive).chain(upgrade);
        all.fold(self.looked + LOOK_EVERY, Instant::min)
    }

    fn due(&mut self, now: Instant) {
        if self.notifier.watchdog().is_some_and(|every| now >= self.told_alive + every) {
            self.told_alive = now;
            self.notifier.alive();
        }
        if now >= self.looked + LOOK_EVERY {
            self.looked = now;
            self.look();
        }
        if self.trim_at.is_some_and(|at| now >= at) {
            self.trim_at = None;
            // Without /proc it stays.
            let _ = kernel::let_go_of_program();
        }
        if self.upgrade.as_ref().is_some_and(|it| now >= it.until) {
            self.upgrade_late();
        }
        if self.start_at.is_some_and(|at| now >= at) {
            self.start_at = None;
            self.start_sole();
        }
    }

    /// Once a second: does the guard still decide?
    fn look(&mut self) {
        let roots = &self.roots;
        if let Some(guard) = &mut self.guard
            && guard
                .watchdog
                .bites(guard.ready_since.is_some(), || watchdog::is_stopped(roots, guard.identity))
        {
            say("the guard decides nothing any more and is replaced");
            "it decided nothing any more".clone_into(&mut self.died);
            guard.kill(roots);
        }
        if self.stopping_since.is_some() {
            self.stop_by_ourselves();
        }
        self.settle_upgrade();
    }

    /// Whether a child has ended.
    fn take_signals(&mut self) -> bool {
        let mut someone_ended = false;
        while let Some(signal) = self.signals.next() {
            if signal == Signal::TERM || signal == Signal::INT || signal == Signal::QUIT {
                self.end();
            } else if signal == Signal::HUP
                && let Some(guard) = &self.guard
            {
                guard.signal(&self.roots, Signal::HUP);
            }
            someone_ended |= signal == Signal::CHILD;
        }
        someone_ended
    }

    /// Told to end, by signal or by the guard: what is left is stopped, by the guard if there is one.
    fn end(&mut self) {
        self.ends();
        if self.upgrade.as_ref().is_some_and(|it| it.stage == Stage::Trying) {
            self.give_up_upgrade();
        }
        match &mut self.guard {
            Some(guard) => guard.end(&self.roots),
            None if self.children.are_over() => self.code = Some(0),
            None => self.start_at = Some(Instant::now()),
        }
    }

    fn ends(&mut self) {
        if !std::mem::replace(&mut self.ending, true) {
            self.notifier.stopping();
        }
    }

    // Guards: starting, greeting, hearing, replacing.

    fn start_sole(&mut self) {
        if self.guard.is_some() || self.code.is_some() || self.stopping_since.is_some() {
            return;
        }
        match self.start(&self.binary, "plimsoll", Role::Sole) {
            Ok(guard) => self.guard = Some(guard),
            Err(why) => {
                say(&format!("the guard cannot be started: {why}"));
                self.plan_start(Duration::ZERO, &why);
            }
        }
    }

    fn start(&self, binary: &OwnedFd, named: &str, role: Role) -> Result<Guard, String> {
        let words = |error: io::Error| error.to_string();
        let (ours, theirs) = kernel::packet_pair().map_err(|error| error.to_string())?;
        let mut argv: Vec<OsString> = vec!["plimsoll".into(), GUARD_WORD.into()];
        argv.extend(self.args.iter().cloned());
        let folder = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let copy = |fd: rustix::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map_err(words);
        let mut command = Command::new(argv, notify::environment(), folder, copy(rustix::stdio::stdout())?);
        command.program = Some(format!("/proc/self/fd/{}", binary.as_raw_fd()).into());
        command.errors = Some(copy(rustix::stdio::stderr())?);
        command.inherit = vec![theirs];
        command.dies_with_us = true;
        command.no_new_privs = false;
        let child = spawn::spawn(&command)
            .map_err(|error| SpawnError { object: named.into(), ..error }.to_string())?;
        Ok(Guard::new(child.identity, ours, role))
    }

    fn hear(&mut self) {
        for first in [true, false] {
            for _ in 0..PACKETS_AT_ONCE {
                let Some(guard) = self.seat(first) else { break };
                if guard.silent {
                    break;
                }
                let outcome = guard.outbox.flush(&guard.socket);
                guard.mind(outcome);
                let mut buffer = [0; PACKET_BYTES_MAX];
                match receive_packet(&guard.socket, &mut buffer, false) {
                    Ok((0, _)) => guard.silent = true,
                    Ok((length, files)) => {
                        let packet = buffer.get(..length).unwrap_or_default();
                        self.heard(first, ToInit::decode(packet), files);
                    }
                    Err(Errno::AGAIN) => break,
                    Err(_) => guard.silent = true,
                }
            }
        }
    }

    fn seat(&mut self, first: bool) -> Option<&mut Guard> {
        if first { self.guard.as_mut() } else { self.other.as_mut() }
    }

    fn heard(&mut self, first: bool, said: Result<ToInit, wire::Garbled>, files: Vec<OwnedFd>) {
        let mut files = files.into_iter();
        let Ok(said) = said else {
            // Another version's word, or nonsense: a guard that cannot be understood is none.
            say("the guard says what is not understood and is replaced");
            return self.seat(first).map_or((), |guard| guard.kill(&Roots::default()));
        };
        match said {
            ToInit::Hello { oldest, newest, version } => self.greet(first, oldest, newest, &version),
            ToInit::Fed => self.seat(first).map_or((), |guard| guard.watchdog.fed()),
            ToInit::Prepared if !first => self.candidate_prepared(),
            ToInit::Bye { code } => self.seat(first).map_or((), |guard| guard.bye = Some(code)),
            // From here on only the one that guards has a say.
            _ if !first => {}
            ToInit::Spawn(request) => self.spawn(request, files),
            ToInit::Forget { child } => self.children.forget(child),
            ToInit::Keep { key } => files.next().map_or((), |file| self.keep(key, file)),
            ToInit::Drop { key } => self.drop_key(&key),
            ToInit::Ready => self.guard_ready(),
            ToInit::Stopping => self.ends(),
            ToInit::Upgrade { path } => files.next().map_or((), |file| self.begin_upgrade(&path, &file)),
            ToInit::Yielded => self.yielded(),
            ToInit::Reloading => self.notifier.reloading(),
            ToInit::Reloaded => self.notifier.reloaded(),
            ToInit::Prepared => {}
        }
    }

    fn keep(&mut self, key: String, file: OwnedFd) {
        if key.starts_with(protocol::LISTENER) && !self.kept.has(&key) {
            self.notifier.store(&key, &file);
        }
        self.kept.keep(key, file);
    }

    fn drop_key(&mut self, key: &str) {
        if key.starts_with(protocol::LISTENER) {
            self.notifier.unstore(key);
        }
        self.kept.drop_key(key);
    }

    fn greet(&mut self, first: bool, oldest: u16, newest: u16, version: &str) {
        let Some(spoken) = protocol::common(oldest, newest) else {
            say(&format!("a guard of version {version} speaks another protocol than init does"));
            let refused = ToGuard::Refused { oldest: protocol::OLDEST, newest: protocol::NEWEST };
            return self.tell(first, refused, None);
        };
        self.life += 1;
        let ending = self.ending;
        let Some(guard) = self.seat(first) else { return };
        (guard.greeted, guard.told_to_end) = (true, ending);
        let role = guard.role;
        let unguarded = self.unguarded_since.map_or(Duration::ZERO, |since| since.elapsed());
        let welcome = Welcome {
            version: spoken,
            init_pid: std::process::id().cast_signed(),
            life: self.life,
            died: protocol::cut(&self.died),
            // What is to replace one that ends again and again may be the cure.
            reduced: role == Role::Sole && self.streak.wants_reduced(),
            ending,
            role,
            unguarded_ms: u64::try_from(unguarded.as_millis()).unwrap_or(u64::MAX),
        };
        self.tell(first, ToGuard::Welcome(welcome), None);
        let kept: Vec<(String, OwnedFd)> =
            self.kept.iter().filter_map(|(key, file)| Some((key.to_owned(), copy(file)?))).collect();
        for (key, file) in kept {
            self.tell(first, ToGuard::Kept { key }, Some(file));
        }
        self.tell(first, ToGuard::KeptAll, None);
        if role == Role::Sole {
            self.hand_over();
        }
    }

    /// Every child, and the word to begin.
    fn hand_over(&mut self) {
        let about = |child: &Child| {
            let (name, note) = (child.name.clone(), child.note.clone());
            let told =
                ToGuard::Child { kind: child.kind, name, note, child: child.identity, end: child.end() };
            (told, child.output.as_ref().and_then(copy))
        };
        let all: Vec<_> = self.children.iter().map(about).collect();
        self.children.handed_over();
        for (told, output) in all {
            self.tell(true, told, output);
        }
        self.tell(true, ToGuard::Begin, None);
    }

    fn tell(&mut self, first: bool, said: ToGuard, file: Option<OwnedFd>) {
        let Some(guard) = self.seat(first) else { return };
        if guard.deaf || !(guard.greeted || matches!(said, ToGuard::Refused { .. })) {
            return;
        }
        let outcome = guard.outbox.say(&guard.socket, said, file);
        guard.mind(outcome);
    }

    fn guard_ready(&mut self) {
        let Some(guard) = &mut self.guard else { return };
        guard.ready_since = Some(Instant::now());
        guard.watchdog.fed();
        self.has_guarded = true;
        self.notifier.ready(guard.identity.pid);
        if self.ending && !guard.told_to_end {
            // It was greeted before.
            guard.end(&self.roots);
        }
        self.died.clear();
        self.unguarded_since = None;
        self.has_taken_over();
    }

    fn guard_ended(&mut self, guard: &Guard, exit: Exit) {
        let lived = guard.ready_since.map_or(Duration::ZERO, |since| since.elapsed());
        if let Some(code) = guard.bye {
            self.give_up_upgrade();
            self.code = Some(code);
            return;
        }
        if self.is_taken_over_at_once(lived) {
            return;
        }
        let began = self.has_guarded || !self.children.are_over();
        match exit {
            // It has said why on standard error.
            Exit::Code(code) if !began && SAID_CODES.contains(&code) => {
                self.code = Some(u8::try_from(code).unwrap_or(INTERNAL));
            }
            Exit::Code(_) | Exit::Signal { .. } if self.ending && self.children.are_over() => {
                self.code = Some(0);
            }
            Exit::Code(_) | Exit::Signal { .. } => {
                let how =
                    if self.died.is_empty() { exit.to_string() } else { std::mem::take(&mut self.died) };
                self.plan_start(lived, &how);
            }
        }
    }

    fn plan_start(&mut self, lived: Duration, how: &str) {
        if self.ending {
            self.ending_failures += 1;
            if self.ending_failures >= ENDING_TRIES {
                say("no guard is left to stop the services; they are stopped without one");
                self.stopping_since = Some(Instant::now());
                return self.stop_by_ourselves();
            }
        }
        let (delay, now) = (self.streak.ended(lived), Instant::now());
        how.clone_into(&mut self.died);
        self.unguarded_since.get_or_insert(now);
        self.start_at = Some(now + delay);
        let count = self.streak.count();
        let status = format!("the guard ended: {how}; it is started again, and the services run on");
        say(&if count > 1 { format!("{status} ({count} quick ends in a row)") } else { status.clone() });
        self.notifier.status(&status);
    }

    // Children.

    fn spawn(&mut self, request: Spawn, files: impl Iterator<Item = OwnedFd>) {
        let full = SpawnError { step: Step::Fork, errno: Errno::AGAIN, object: PathBuf::from(&request.name) };
        self.trim_at = Some(Instant::now() + LOOK_EVERY);
        let begun = if self.children.is_full() { Err(full) } else { command::begin(&request, files) };
        let Spawn { token, kind, name, note, .. } = request;
        match begun {
            Ok((pending, output)) => {
                let identity = pending.identity();
                let state = State::Starting { token, pending, ended: None, handed_over: false };
                self.children.add(Child { kind, name, note, identity, output, state });
            }
            Err(error) => self.tell_failed(token, &error),
        }
    }

    fn tell_born(&mut self) {
        if self.children.starting().next().is_none() {
            return;
        }
        for born in self.children.born(Instant::now()) {
            match born {
                Born::Spawned { token, identity, ended } => {
                    self.tell(true, ToGuard::Spawned { token, child: identity }, None);
                    if let Some(exit) = ended {
                        self.tell(true, ToGuard::Exited { child: identity, exit }, None);
                    }
                }
                Born::Failed { token, error } => self.tell_failed(token, &error),
                Born::Lost { identity, exit } => {
                    self.tell(true, ToGuard::Exited { child: identity, exit }, None);
                }
            }
        }
    }

    fn tell_failed(&mut self, token: u64, error: &SpawnError) {
        let object = protocol::cut(&error.object.to_string_lossy());
        let (step, errno) = (error.step.code(), error.errno.raw_os_error());
        self.tell(true, ToGuard::Failed { token, step, errno, object }, None);
    }

    fn reap(&mut self) {
        let mut orphans = false;
        while let Some((pid, exit)) = reap_next() {
            if let Some(guard) = self.guard.take_if(|it| it.identity.pid == pid) {
                self.last_words(guard, true, exit);
            } else if let Some(other) = self.other.take_if(|it| it.identity.pid == pid) {
                self.last_words(other, false, exit);
            } else {
                match self.children.ended(pid, exit) {
                    Ended::Child(child) => self.tell(true, ToGuard::Exited { child, exit }, None),
                    Ended::Unborn => {}
                    Ended::Orphan => orphans = true,
                }
            }
        }
        if orphans {
            self.tell(true, ToGuard::Orphan, None);
        }
        if self.stopping_since.is_some() && self.children.are_over() {
            self.code = Some(0);
        }
    }

    /// What it still said before it ended counts.
    fn last_words(&mut self, guard: Guard, first: bool, exit: Exit) {
        if first {
            self.guard = Some(guard);
        } else {
            self.other = Some(guard);
        }
        self.hear();
        let ended = if first { self.guard.take() } else { self.other.take() };
        match ended {
            Some(guard) if first => self.guard_ended(&guard, exit),
            Some(_) => self.other_ended(exit),
            None => {}
        }
    }
}

fn copy(fd: &OwnedFd) -> Option<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, LINK_FD).ok()
}

fn say(what: &str) {
    // Where nobody reads it, nothing is lost that the guard would not say again.
    let _ = writeln!(io::stderr(), "plimsoll: {what}");
}
