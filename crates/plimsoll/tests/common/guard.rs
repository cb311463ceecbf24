//! A guard in a folder of its own, started as a user would and read as a script would.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll_guard::records::{EventRecord, IncidentRecord, InstanceStatus, ServiceStatus, Status};
use rustix::process::Signal;

pub use super::folder::Folder;
use super::output::{Events, Following};
use super::{
    EXE, PATIENCE, assert_exit, http, leftovers, plimsoll, plimsoll_command, stdout, until, until_some,
};

/// A running guard. Ended when dropped; then nothing of it may be left.
pub struct Guard {
    pub folder: Arc<Folder>,
    child: Child,
    events: Events,
    seen: usize,
    /// It has been waited for, so its pid is nobody's.
    ended: Option<ExitStatus>,
    /// What it left is another guard's to end.
    succeeded: bool,
}

impl Guard {
    pub(super) fn launch(folder: Arc<Folder>, command: Command, what: &[&str]) -> Self {
        let mut child = folder.spawn(command, what);
        let events = Events::read(child.stdout.take().unwrap());
        Self { folder, child, events, seen: 0, ended: None, succeeded: false }
    }

    /// The next guard in the same folder, once this one has ended; what is left is that one's to deal with.
    pub fn again(self) -> Self {
        self.again_by(Command::new(EXE))
    }

    pub fn again_by(mut self, command: Command) -> Self {
        self.wait();
        self.succeeded = true;
        let folder = Arc::clone(&self.folder);
        let file = folder.file();
        Self::launch(folder, command, &[file.to_str().unwrap()])
    }

    /// What was started: init, or a guard that is alone.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// The process that decides.
    #[track_caller]
    pub fn guard_pid(&self) -> i32 {
        i32::try_from(self.status().guard.pid).unwrap()
    }

    /// The next event of this kind after the last one that was waited for.
    #[track_caller]
    pub fn next(&mut self, kind: &str) -> EventRecord {
        self.next_where(kind, |event| event.kind == kind)
    }

    #[track_caller]
    pub fn next_where(&mut self, what: &str, wanted: impl Fn(&EventRecord) -> bool) -> EventRecord {
        match self.events.wait(self.seen, wanted) {
            Some((seen, event)) => {
                self.seen = seen;
                event
            }
            None => panic!("no {what} came\n{}", self.story()),
        }
    }

    /// Everything told so far.
    pub fn told(&self) -> Vec<EventRecord> {
        self.events.all()
    }

    pub fn told_of(&self, kind: &str) -> Vec<EventRecord> {
        self.told().into_iter().filter(|event| event.kind == kind).collect()
    }

    /// What happened, for the message of a test that fails.
    pub fn story(&self) -> String {
        let events: Vec<String> = self.told().iter().map(plimsoll_guard::tell::line).collect();
        format!("events:\n{}\nstderr:\n{}", events.join("\n"), self.stderr())
    }

    pub fn stderr(&self) -> String {
        self.folder.read("stderr")
    }

    pub fn cli(&self, args: &[&str]) -> Output {
        let socket = self.folder.socket.as_ref().map(|path| path.to_str().unwrap());
        let socket: Vec<&str> = socket.into_iter().flat_map(|path| ["--socket", path]).collect();
        plimsoll(&self.folder.state(), &[&socket, args].concat())
    }

    /// A command of ours that goes on, such as one that follows.
    pub fn cli_on(&self, args: &[&str]) -> Following {
        let mut command = plimsoll_command();
        command.arg("--state").arg(self.folder.state()).args(args);
        Following::start(command)
    }

    /// Printed by a command that has to succeed.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.cli(args);
        assert_exit(&output, 0);
        stdout(&output)
    }

    #[track_caller]
    pub fn status(&self) -> Status {
        let output = self.cli(&["status", "--json"]);
        serde_json::from_str(&stdout(&output)).unwrap_or_else(|_| panic!("{output:?}\n{}", self.story()))
    }

    #[track_caller]
    pub fn service(&self, name: &str) -> ServiceStatus {
        self.status().services.into_iter().find(|it| it.name == name).unwrap()
    }

    /// The one that serves.
    #[track_caller]
    pub fn lead(&self, name: &str) -> InstanceStatus {
        let find =
            || self.service(name).instances.into_iter().find(|it| it.role == "lead" && it.state == "ready");
        until_some(&format!("{name} is ready\n{}", self.story()), find)
    }

    #[track_caller]
    pub fn address(&self, name: &str) -> SocketAddr {
        self.lead(name).address.unwrap().parse().unwrap()
    }

    /// Turns on a fault in the one that serves.
    #[track_caller]
    pub fn inject(&self, name: &str, fault: &str) {
        let answer = http::post(self.address(name), fault, "");
        assert!(matches!(answer, Ok((200 | 202, _))), "{fault}: {answer:?}\n{}", self.story());
    }

    #[track_caller]
    pub fn incidents(&self) -> Vec<IncidentRecord> {
        serde_json::from_str(&self.ok(&["incidents", "--json", "-n", "100"])).unwrap()
    }

    /// With its evidence, once that is there.
    #[track_caller]
    pub fn incident(&self, id: u64) -> IncidentRecord {
        let id = id.to_string();
        let show = || {
            let incident = self.ok(&["incidents", "show", &id, "--json"]);
            serde_json::from_str(&incident).ok().filter(|it: &IncidentRecord| it.evidence.is_some())
        };
        until_some("the incident has its evidence", show)
    }

    /// The file in one of the instance's groups (v1 has one for each controller), where this host has any.
    pub fn group_file(&self, instance: &str, name: &str) -> Option<PathBuf> {
        let groups = leftovers::groups(&self.folder.state());
        groups.into_iter().map(|group| group.join(instance).join(name)).find(|path| path.exists())
    }

    pub fn signal(&self, signal: Signal) {
        leftovers::kill(self.pid(), signal);
    }

    /// Told to end by SIGTERM; nothing may be left.
    #[track_caller]
    pub fn end(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let ended = self.wait();
        self.assert_nothing_left();
        ended
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        if let Some(ended) = self.ended {
            return ended;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(ended) = self.child.try_wait().unwrap() {
                self.ended = Some(ended);
                return ended;
            }
            assert!(Instant::now() < deadline, "it does not end\n{}", self.story());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    #[track_caller]
    fn assert_nothing_left(&self) {
        let mark = self.folder.mark();
        // The kernel takes a moment to be done with a killed process and its group.
        let clean =
            || leftovers::processes(&mark).is_empty() && leftovers::groups(&self.folder.state()).is_empty();
        let deadline = Instant::now() + Duration::from_secs(3);
        while !clean() && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let (left, groups) = (leftovers::processes(&mark), leftovers::groups(&self.folder.state()));
        let described = leftovers::describe(&left);
        assert!(left.is_empty(), "processes left:\n{described}\n{}", self.story());
        assert!(groups.is_empty(), "control groups left: {groups:?}\n{}", self.story());
    }

    /// Whatever is left after a failed test.
    fn clear(&mut self) {
        if self.ended.is_none() {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
            self.ended = Some(ExitStatus::default());
        }
        let mark = self.folder.mark();
        let gone = || {
            for pid in leftovers::processes(&mark) {
                leftovers::kill(pid, Signal::KILL);
            }
            leftovers::processes(&mark).is_empty()
        };
        until("what is left is killed", gone);
        let mut groups = leftovers::groups(&self.folder.state());
        groups.extend(
            groups
                .clone()
                .iter()
                .flat_map(|it| fs::read_dir(it).into_iter().flatten().flatten())
                .map(|it| it.path()),
        );
        for group in groups.iter().rev() {
            let _ = fs::remove_dir(group);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.story());
            self.clear();
        } else if self.ended.is_none() {
            self.end();
        } else if !self.succeeded {
            self.assert_nothing_left();
        }
    }
}
