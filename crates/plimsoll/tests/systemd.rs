//! What a service manager asks for and is told: the unit, notifications, sockets.
#![allow(clippy::unwrap_used, reason = "these are tests, also outside of #[test]")]

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use common::config::sample;
use common::guard::Folder;
use common::{EXE, assert_exit, http, leftovers, plimsoll, stderr, stdout, until};
use rustix::process::Signal;

#[test]
fn the_unit_passes_systemds_own_check() {
    let folder = Folder::new();
    let front = "[front]\nhttp = \"127.0.0.1:8089\"\n";
    let file = folder.write("plimsoll.toml", &sample("", front));
    let units = folder.path().to_str().unwrap();
    let file = file.to_str().unwrap();
    assert_exit(
        &plimsoll(&folder.state(), &["export", "systemd", file, "--socket-unit", "--output", units]),
        0,
    );
    let unit = folder.read("plimsoll.service");
    for promised in
        ["Type=notify", "WatchdogSec=", "Delegate=yes", "FileDescriptorStoreMax=", "KillMode=mixed"]
    {
        assert!(unit.contains(promised), "{promised} in {unit}");
    }
    assert!(folder.read("plimsoll.socket").contains("ListenStream=127.0.0.1:8089"));
    let printed = plimsoll(&folder.state(), &["export", "systemd", file]);
    assert_eq!(stdout(&printed), unit);
    let mut verify = Command::new("systemd-analyze");
    verify.arg("verify").args(["plimsoll.service", "plimsoll.socket"].map(|name| folder.path().join(name)));
    match verify.output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", stderr(&output));
            let ours: Vec<String> =
                stderr(&output).lines().filter(|it| it.contains("plimsoll")).map(str::to_owned).collect();
            assert_eq!(ours, Vec::<String>::new());
        }
        Err(error) => common::not_run(&format!("it needs systemd-analyze: {error}")),
    }
}

/// A service manager that listens.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
    seen: usize,
}

impl Manager {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, heard: Vec::new(), seen: 0 }
    }

    fn listen(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            self.heard.extend(text.lines().map(str::to_owned));
        }
    }

    /// The next line that begins so, after the last one that was waited for.
    #[track_caller]
    fn waits_for(&mut self, what: &str) {
        until(&format!("it says {what}"), || {
            self.listen();
            let found = self.heard[self.seen..].iter().position(|it| it.starts_with(what));
            self.seen += found.map_or(0, |place| place + 1);
            found.is_some()
        });
    }
}

#[test]
fn the_manager_hears_of_readiness_life_reload_and_stop_and_services_hear_nothing_of_it() {
    let folder = Folder::new();
    let path = folder.path().join("notify.sock");
    let mut manager = Manager::at(&path);
    let mut command = Command::new(EXE);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    let mut guard = folder.start_by(command, &sample("", ""));
    manager.waits_for("READY=1");
    guard.next("ready");
    manager.waits_for("WATCHDOG=1");
    let pid = guard.lead("reports").pid.unwrap();
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains("NOTIFY_SOCKET"));
    guard.signal(Signal::HUP);
    manager.waits_for("RELOADING=1");
    manager.waits_for("READY=1");
    leftovers::kill(guard.guard_pid(), Signal::KILL);
    manager.waits_for("STATUS=the guard ended");
    manager.waits_for("READY=1");
    guard.next("guard_restarted");
    guard.signal(Signal::TERM);
    manager.waits_for("STOPPING=1");
    assert!(guard.wait().success());
}

#[test]
fn the_manager_is_asked_to_hold_a_listener_and_to_let_go_of_one_that_is_not_wanted_any_more() {
    let folder = Folder::new();
    let path = folder.path().join("notify.sock");
    let mut manager = Manager::at(&path);
    let mut command = Command::new(EXE);
    command.env("NOTIFY_SOCKET", &path);
    let [before, after] = [http::free_port(), http::free_port()];
    let config = |port: u16| sample("", &format!("[front]\nhttp = \"127.0.0.1:{port}\"\n"));
    let mut guard = folder.start_by(command, &config(before));
    guard.next("ready");
    manager.waits_for("FDSTORE=1");
    manager.waits_for(&format!("FDNAME=listener http 127.0.0.1_{before}"));
    guard.folder.write("plimsoll.toml", &config(after));
    guard.ok(&["reload"]);
    manager.waits_for(&format!("FDNAME=listener http 127.0.0.1_{after}"));
    manager.waits_for("FDSTOREREMOVE=1");
    manager.waits_for(&format!("FDNAME=listener http 127.0.0.1_{before}"));
}

#[test]
fn a_socket_that_the_manager_listens_on_is_taken_over() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Inherited under its own number, and put to where managers put it.
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let number = listener.as_raw_fd();
    let script = format!("exec 3<&{number}; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"");
    let script =
        if number == 3 { "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"".to_owned() } else { script };
    let mut command = Command::new("sh");
    command.args(["-c", &script, EXE]);
    let mut guard = Folder::new().start_by(command, &sample("", &format!("[front]\nhttp = \"{address}\"\n")));
    guard.next("ready");
    drop(listener);
    assert!(matches!(http::get(address, "/health"), Ok((200, _))));
    leftovers::kill(guard.guard_pid(), Signal::KILL);
    guard.next("guard_restarted");
    assert!(matches!(http::get(address, "/health"), Ok((200, _))));
}
