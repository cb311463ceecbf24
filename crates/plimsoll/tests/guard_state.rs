//! The guard ends, and what it left for the next one is spoilt; or it ends of what it holds itself.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt as _;

use common::config::{sample, worker};
use common::guard::{Folder, Guard};
use common::memory_group::MemoryGroup;
use common::{http, is_root, leftovers, not_run, until, until_some};
use rustix::process::Signal;

/// Both places where a state is saved by turns, as the guard has them: 16 bytes of its own, then the state.
const PLACES: [u64; 2] = [16, (32 << 20) + 16];
/// Behind the magic word.
const FORM_AT: u64 = 8;
/// Behind form, length and checksum.
const BODY_AT: u64 = 26;

/// The file of memory that init holds.
fn state_file(guard: &Guard) -> File {
    let is_state = |link: &fs::DirEntry| {
        fs::read_link(link.path()).is_ok_and(|it| it.to_string_lossy().contains("plimsoll-state"))
    };
    let open = || fs::read_dir(format!("/proc/{}/fd", guard.pid())).unwrap().flatten().find(is_state);
    let link = until_some("init holds the state", open);
    File::options().read(true).write(true).open(link.path()).unwrap()
}

/// A guard whose saved state is overwritten with this in both places, and which is killed then: what is told of that.
fn spoilt(guard: &mut Guard, at: u64, with: &[u8]) -> String {
    let (decides, state) = (guard.guard_pid(), state_file(guard));
    // Held still first, so that it cannot save another one.
    leftovers::kill(decides, Signal::STOP);
    until("it stands still", || leftovers::state(decides) == Some('T'));
    for place in PLACES {
        state.write_all_at(with, place + at).unwrap();
    }
    leftovers::kill(decides, Signal::KILL);
    let told = guard.next("state_lost");
    guard.next("guard_restarted");
    assert_eq!(told.detail["severity"], "warning");
    told.detail["message"].as_str().unwrap().to_owned()
}

/// Everything that runs was taken over all the same.
fn assert_goes_on(guard: &mut Guard, before: Option<i32>) {
    assert_eq!((guard.lead("reports").id.as_str(), guard.lead("reports").pid), ("reports.1", before));
    leftovers::kill(before.unwrap(), Signal::KILL);
    guard.next_where("the next one", |it| it.kind == "ready" && it.instance.as_deref() == Some("reports.2"));
}

#[test]
fn a_saved_state_that_is_torn_is_not_believed_and_whatever_runs_is_taken_over() {
    let config = format!("{}\n{}", sample("", ""), worker("stopped", &["sleep", "1000"], ""));
    let mut guard = Folder::new().start(&config);
    guard.next_where("reports is ready", |it| it.kind == "ready" && it.service == "reports");
    guard.ok(&["stop", "stopped"]);
    let pid = guard.lead("reports").pid;
    let told = spoilt(&mut guard, BODY_AT, b"neither this nor that");
    assert!(told.contains("it is torn"), "{told}");
    // Nobody knows any more that it was to be down.
    guard.next_where("it is started", |it| it.kind == "ready" && it.service == "stopped");
    assert_goes_on(&mut guard, pid);
}

#[test]
fn a_saved_state_of_a_later_version_is_not_guessed_at() {
    let mut guard = Folder::new().start(&sample("", ""));
    guard.next("ready");
    let pid = guard.lead("reports").pid;
    let told = spoilt(&mut guard, FORM_AT, &u16::MAX.to_le_bytes());
    assert!(told.contains("a later version wrote it"), "{told}");
    assert_goes_on(&mut guard, pid);
}

/// Clients that begin to ask and never end, each of which costs some memory.
fn beginnings(front: SocketAddr) -> Vec<TcpStream> {
    let begin = |_| {
        let mut stream = TcpStream::connect(front).ok()?;
        let begun = format!("POST /reports HTTP/1.1\r\nhost: a\r\nx-long: {}", "x".repeat(8000));
        stream.write_all(begun.as_bytes()).ok()?;
        Some(stream)
    };
    (0..400).filter_map(begin).collect()
}

#[test]
fn a_guard_that_the_kernel_kills_for_want_of_memory_is_replaced() {
    if !is_root("a memory group") {
        return;
    }
    let port = http::free_port();
    let front = SocketAddr::from(([127, 0, 0, 1], port));
    let mut guard = Folder::new().start(&sample("", &format!("[front]\nhttp = \"{front}\"\n")));
    guard.next("ready");
    let (decides, pid) = (guard.guard_pid(), guard.lead("reports").pid);
    // What it holds already stays with the group that it comes from.
    let Some(group) = MemoryGroup::with_limit(512 << 10) else {
        return not_run("it needs a memory group of v1 that may be made");
    };
    group.take_in(decides);
    let clients = beginnings(front);
    let told = guard.next("guard_restarted");
    assert!(told.detail["message"].as_str().unwrap().contains("signal 9 (SIGKILL)"), "{told:?}");
    assert!(group.killed() > 0, "the kernel did it");
    drop(clients);
    assert!(matches!(http::get(front, "/health"), Ok((200, _))));
    assert_eq!(guard.lead("reports").pid, pid);
}
