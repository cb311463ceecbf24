//! What our commands print while they run, taken line by line.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use plimsoll_guard::records::EventRecord;

use super::{PATIENCE, until_some};

/// The guard's events as they are printed.
#[derive(Default)]
struct Told {
    events: Vec<EventRecord>,
    ended: bool,
}

pub(super) struct Events(Arc<(Mutex<Told>, Condvar)>);

impl Events {
    pub(super) fn read(output: impl std::io::Read + Send + 'static) -> Self {
        let told = Arc::new((Mutex::new(Told::default()), Condvar::new()));
        let ours = Arc::clone(&told);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                ours.0.lock().unwrap().events.push(event);
                ours.1.notify_all();
            }
            ours.0.lock().unwrap().ended = true;
            ours.1.notify_all();
        });
        Self(told)
    }

    /// The first event from `from` on that is wanted, and the place behind it.
    pub(super) fn wait(
        &self,
        from: usize,
        wanted: impl Fn(&EventRecord) -> bool,
    ) -> Option<(usize, EventRecord)> {
        let deadline = Instant::now() + PATIENCE;
        let mut told = self.0.0.lock().unwrap();
        loop {
            let found = told.events.iter().enumerate().skip(from).find(|(_, event)| wanted(event));
            if let Some((index, event)) = found {
                return Some((index + 1, event.clone()));
            }
            let left = deadline.checked_duration_since(Instant::now()).filter(|_| !told.ended)?;
            told = self.0.1.wait_timeout(told, left).unwrap().0;
        }
    }

    pub(super) fn all(&self) -> Vec<EventRecord> {
        self.0.0.lock().unwrap().events.clone()
    }
}

/// A command that prints as things happen; ended when dropped.
pub struct Following {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Following {
    pub(super) fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (output, ours) = (child.stdout.take().unwrap(), Arc::clone(&lines));
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                ours.lock().unwrap().push(line);
            }
        });
        Self { child, lines }
    }

    /// The first line with this in it, once it is there.
    #[track_caller]
    pub fn line(&self, part: &str) -> String {
        let find = || self.lines.lock().unwrap().iter().find(|line| line.contains(part)).cloned();
        until_some(&format!("a line with {part:?}"), find)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
