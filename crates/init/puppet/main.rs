//! For the tests of this package alone: init, and guards made for a test, by the words that the shipped binary has for
//! them. What a guard finds out is init's exit code.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "this is a test's other half")]

mod upgrades;

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use plimsoll_init::protocol::{ChildKind, ToInit, Welcome};
use plimsoll_init::{Held, Link, Told, init};
use plimsoll_kernel::process::{Identity, Signal, signal, uptime};
use plimsoll_kernel::{Exit, Roots, inherited, receive_packet, send_packet, spawn};

const FINE: u8 = 42;
const NOT_FINE: u8 = 43;
const STARTS_DEFAULT: u64 = 10_000;
/// Until whatever is allocated once is there.
const WARM_UP: u64 = 500;
/// A page or two of the allocator's own; a leak of eight bytes for each start would be more.
const GROWTH_KIB_MAX: u64 = 64;
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let word = |index: usize| words.get(index).and_then(|it| it.to_str()).unwrap_or_default();
    match word(0) {
        init::INIT_WORD => ExitCode::from(init::run(&words[1..])),
        init::GUARD_WORD => as_guard(word(1)),
        _ => ExitCode::from(2),
    }
}

fn starts() -> u64 {
    std::env::var("PLIMSOLL_STARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(STARTS_DEFAULT)
}

fn as_guard(kind: &str) -> ExitCode {
    let fine = match kind {
        "soak" => soak_guard(),
        "foreign" => return if foreign_guard() { ExitCode::from(FINE) } else { ExitCode::from(NOT_FINE) },
        "nonsense" => nonsense_guard(),
        "deserter" => deserting_guard(),
        "mute" => mute_guard(),
        "reuse" => reuse_guard(),
        "hopeless" => hopeless_guard(),
        "inattentive" => inattentive_guard(),
        other => upgrades::as_guard(other),
    };
    ExitCode::from(u8::from(!fine))
}

/// Greets, and gives the number of this life and the children that were handed over.
fn greet(link: &Link) -> (u64, Vec<Held>) {
    let welcome = welcomed(link);
    (welcome.life, begin(link))
}

/// Greets, up to the end of what is kept.
fn welcomed(link: &Link) -> Welcome {
    link.hello("test").unwrap();
    let Told::Welcome(welcome) = link.receive(true).unwrap().unwrap() else { panic!("no welcome") };
    while !matches!(link.receive(true).unwrap().unwrap(), Told::KeptAll) {}
    welcome
}

/// Waits for the children and the word to begin.
fn begin(link: &Link) -> Vec<Held> {
    let mut held = Vec::new();
    loop {
        match link.receive(true).unwrap().unwrap() {
            Told::Child(child) => held.push(child),
            Told::Begin => return held,
            Told::Welcome(_)
            | Told::Kept { .. }
            | Told::KeptAll
            | Told::Exited { .. }
            | Told::Orphan
            | Told::Yield
            | Told::Leave
            | Told::NotUpgraded { .. } => {}
        }
    }
}

/// A child that runs until it is killed.
fn start_child(link: &Link) -> Identity {
    let command = command(&["/bin/sleep", "1000"]);
    link.spawn(ChildKind::Instance, "reports.1", "", &command, None).unwrap().identity
}

/// It is among those handed over, and lives. It is ended, so that nothing is left of the test.
fn found_and_ended(held: &[Held]) -> bool {
    for child in held {
        let _ = signal(&Roots::default(), child.identity, Signal::KILL);
    }
    held.iter().any(|child| child.name == "reports.1" && child.end.is_none())
}

/// In its second life it ends a child, does not listen to what init says of that, says goodbye, and is gone before init
/// has heard it.
#[expect(clippy::zombie_processes, reason = "what it leaves to init is reaped there")]
fn inattentive_guard() -> bool {
    let link = Link::inherited().unwrap();
    let (life, held) = greet(&link);
    link.say(&ToInit::Ready).unwrap();
    if life == 1 {
        let _heard = ear(&link);
        start_child(&link);
        std::process::abort();
    }
    let fine = found_and_ended(&held);
    let is_there = |child: &Held| fs::exists(format!("/proc/{}", child.identity.pid)).unwrap();
    while held.iter().any(is_there) {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    std::thread::park_timeout(Duration::from_millis(100));
    let init = std::os::unix::process::parent_id();
    let wake = format!("kill -STOP {init}; sleep 0.3; kill -CONT {init}");
    std::process::Command::new("sh").args(["-c", &wake]).spawn().unwrap();
    std::thread::park_timeout(Duration::from_millis(100));
    say_bye(&link, fine)
}

fn say_bye(link: &Link, fine: bool) -> bool {
    let code = if fine { FINE } else { NOT_FINE };
    link.say(&ToInit::Bye { code }).unwrap();
    true
}

fn command(argv: &[&str]) -> spawn::Command {
    let null = OwnedFd::from(File::options().write(true).open("/dev/null").unwrap());
    spawn::Command::new(argv.iter().map(OsString::from).collect(), Vec::new(), "/".into(), null)
}

fn ear(link: &Link) -> std::sync::mpsc::Receiver<Told> {
    let (teller, heard) = std::sync::mpsc::sync_channel(64);
    let ear = link.clone();
    std::thread::spawn(move || {
        while let Ok(told) = ear.receive(true) {
            if told.is_some_and(|told| teller.send(told).is_err()) {
                return;
            }
        }
    });
    heard
}

/// What init holds of memory: of its own, and with the pages of its program.
fn init_kib() -> (u64, u64) {
    let parent = std::os::unix::process::parent_id();
    let status = fs::read_to_string(format!("/proc/{parent}/status")).unwrap();
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (of("RssAnon:"), of("VmRSS:"))
}

/// So many at a time, each by a thread of its own.
const AT_ONCE: u64 = 4;

fn soak_guard() -> bool {
    let link = Link::inherited().unwrap();
    greet(&link);
    let heard = ear(&link);
    link.say(&ToInit::Ready).unwrap();
    let all = starts();
    for _ in 0..AT_ONCE {
        let link = link.clone();
        std::thread::spawn(move || {
            for _ in 0..all / AT_ONCE {
                link.spawn(ChildKind::Instance, "soak.1", "note", &command(&["/bin/true"]), None).unwrap();
            }
        });
    }
    let (mut before, mut ended) = ((0, 0), 0);
    while ended < all / AT_ONCE * AT_ONCE {
        let Told::Exited { child, .. } = heard.recv_timeout(PATIENCE).unwrap() else { continue };
        link.say(&ToInit::Forget { child }).unwrap();
        link.say(&ToInit::Fed).unwrap();
        ended += 1;
        if ended == WARM_UP {
            before = init_kib();
        }
    }
    let after = init_kib();
    println!(
        "{ended} starts: init holds {} KiB of its own ({} resident) after {WARM_UP}, {} KiB ({}) at the end",
        before.0, before.1, after.0, after.1
    );
    say_bye(&link, after.0 <= before.0 + GROWTH_KIB_MAX)
}

/// Speaks versions that nobody else does.
fn foreign_guard() -> bool {
    let socket = inherited(init::LINK_FD).unwrap();
    // Hello, from version 1000 to 1001, with an empty name.
    send_packet(&socket, &[1, 0xe8, 3, 0xe9, 3, 0, 0, 0, 0], &[], true).unwrap();
    let mut buffer = [0; 64];
    let (length, _) = receive_packet(&socket, &mut buffer, true).unwrap();
    // Refused, and what init speaks.
    buffer[..length] == [2, 1, 0, 1, 0]
}

/// The first one starts a child and then says what nobody understands; the next one finds the child.
fn nonsense_guard() -> bool {
    let link = Link::inherited().unwrap();
    let (life, held) = greet(&link);
    link.say(&ToInit::Ready).unwrap();
    if life == 1 {
        let heard = ear(&link);
        start_child(&link);
        send_packet(&link, &[250, 1, 2, 3], &[], true).unwrap();
        // It is killed for that.
        drop(heard.recv_timeout(PATIENCE));
        std::thread::park_timeout(PATIENCE);
        return false;
    }
    say_bye(&link, found_and_ended(&held) && life == 2)
}

/// The first one answers whoever asks, and never says that it completed a cycle; the next one is told why.
fn mute_guard() -> bool {
    let link = Link::inherited().unwrap();
    let welcome = welcomed(&link);
    let held = begin(&link);
    link.say(&ToInit::Ready).unwrap();
    if welcome.life == 1 {
        let heard = ear(&link);
        start_child(&link);
        drop(heard.recv_timeout(PATIENCE));
        return false;
    }
    let told = welcome.died.contains("decided nothing") && welcome.unguarded_ms < 5000;
    say_bye(&link, found_and_ended(&held) && told)
}

/// While the first one is at its end, its child ends and somebody else gets the child's pid; the next one must not take
/// that process for the child.
fn reuse_guard() -> bool {
    let link = Link::inherited().unwrap();
    let (life, held) = greet(&link);
    link.say(&ToInit::Ready).unwrap();
    if life == 1 {
        let heard = ear(&link);
        let argv = ["/bin/sh", "-c", "exit 3"];
        let child = link.spawn(ChildKind::Instance, "reports.1", "", &command(&argv), None).unwrap();
        while !matches!(heard.recv_timeout(PATIENCE).unwrap(), Told::Exited { .. }) {}
        let pid = child.identity.pid;
        // The kernel tells starts apart by hundredths of a second.
        let now = || uptime(&Roots::default()).unwrap();
        let ended = now();
        while now() < ended + Duration::from_millis(20) {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
        let stranger = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        assert_eq!(stranger.id(), pid.cast_unsigned(), "it was to have the pid");
        std::process::abort();
    }
    let [child] = held.as_slice() else { return say_bye(&link, false) };
    let roots = Roots::default();
    let stranger = Identity::of(&roots, child.identity.pid).unwrap();
    let refused = signal(&roots, child.identity, Signal::KILL).is_err_and(|error| error.is_gone());
    let untouched = stranger != child.identity && stranger.is_alive(&roots);
    signal(&roots, stranger, Signal::KILL).unwrap();
    say_bye(&link, child.end == Some(Exit::Code(3)) && refused && untouched)
}

/// Once everything is to be stopped, no guard gets anywhere.
fn hopeless_guard() -> bool {
    let link = Link::inherited().unwrap();
    let welcome = welcomed(&link);
    begin(&link);
    if welcome.ending {
        std::process::abort();
    }
    link.say(&ToInit::Ready).unwrap();
    let heard = ear(&link);
    start_child(&link);
    end_init();
    drop(heard.recv_timeout(PATIENCE));
    std::process::abort();
}

/// As a service manager asks for the end.
fn end_init() {
    let init = i32::try_from(std::os::unix::process::parent_id()).unwrap();
    let roots = Roots::default();
    signal(&roots, Identity::of(&roots, init).unwrap(), Signal::TERM).unwrap();
}

/// The first one leaves right after it has started a child that ends by itself.
fn deserting_guard() -> bool {
    let link = Link::inherited().unwrap();
    let (life, held) = greet(&link);
    if life == 1 {
        link.say(&ToInit::Ready).unwrap();
        let heard = ear(&link);
        let argv = ["/bin/sh", "-c", "exit 7"];
        link.spawn(ChildKind::Instance, "reports.1", "where", &command(&argv), None).unwrap();
        // Its end is on the way or has come; nobody forgets it.
        drop(heard.recv_timeout(PATIENCE));
        std::process::abort();
    }
    let end = held.iter().find(|child| child.name == "reports.1" && child.note == "where").map(|it| it.end);
    say_bye(&link, end == Some(Some(Exit::Code(7))))
}
