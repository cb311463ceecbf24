//! What a child of a test does: this binary, started again with a role in its environment.

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use plimsoll_kernel::Roots;
use plimsoll_kernel::cgroup::discover;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fs::inotify;

pub(crate) const VARIABLE: &str = "PLIMSOLL_TEST_ROLE";

/// Passes at once unless it is run as a child of another test.
#[test]
fn plays_the_role_it_is_given() {
    let Ok(role) = std::env::var(VARIABLE) else { return };
    let words: Vec<&str> = role.split(' ').collect();
    match words.as_slice() {
        ["hold", mib] => hold(mib.parse().unwrap()),
        ["bomb"] => bomb(),
        ["discover", scope] => discover_a_place(scope),
        ["descriptors", folder] => open_descriptors(Path::new(folder)),
        other => panic!("no such role: {other:?}"),
    }
}

fn hold(mib: usize) {
    // Not zero, or the allocator could leave it to the kernel's zero page.
    let held = black_box(vec![1_u8; mib << 20]);
    say("holding");
    rest();
    drop(held);
}

/// Goes on for ever, whatever it meets: a bomb of shells ends as soon as one of them may not fork.
fn bomb() {
    let mut others = Vec::new();
    loop {
        let mut other = Command::new(std::env::current_exe().unwrap());
        other.args(std::env::args().skip(1)).stdout(Stdio::null()).stderr(Stdio::null());
        others.extend(other.spawn());
        others.retain_mut(|other| matches!(other.try_wait(), Ok(None)));
    }
}

fn discover_a_place(scope: &str) {
    let found = discover(&Roots::default(), scope);
    for refusal in &found.refusals {
        say(&format!("refused: {refusal}"));
    }
    let chosen = found.chosen.unwrap();
    say(&format!("chosen {}", chosen.path().display()));
    chosen.remove_if_empty();
    say(&format!("own group {}", std::fs::read_to_string("/proc/self/cgroup").unwrap()));
    rest();
}

/// A known number of each kind: 7 files in the folder and a deleted one, 4 connections out of which both ends are here, 2
/// eventfds, an epoll, an inotify, 3 pipes, a UDP and 2 unix sockets.
fn open_descriptors(folder: &Path) {
    let files: Vec<File> = (0..8).map(|at| File::create(folder.join(at.to_string())).unwrap()).collect();
    std::fs::remove_file(folder.join("7")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections: Vec<_> = (0..4)
        .map(|_| (TcpStream::connect(("127.0.0.1", port)).unwrap(), listener.accept().unwrap().0))
        .collect();
    let pipes: Vec<_> = (0..3).map(|_| std::io::pipe().unwrap()).collect();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let unix = std::os::unix::net::UnixStream::pair().unwrap();
    let events: Vec<OwnedFd> = (0..2).map(|_| eventfd(0, EventfdFlags::CLOEXEC).unwrap()).collect();
    let others = [
        epoll::create(epoll::CreateFlags::CLOEXEC).unwrap(),
        inotify::init(inotify::CreateFlags::CLOEXEC).unwrap(),
    ];
    say(&format!("port {port}."));
    rest();
    drop((files, connections, pipes, udp, unix, events, others));
}

fn say(text: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{text}").unwrap();
    out.flush().unwrap();
}

fn rest() {
    loop {
        std::thread::park();
    }
}
