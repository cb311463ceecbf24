//! Other programs: run them in view, capture them, or end them with their children when they are overdue.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Error, Result};

/// How much of a failed program's stderr is repeated in the error.
const SAID_LINES_MAX: usize = 12;

/// Lines read from a program and not yet shown; it waits when there are more.
const LINES_WAITING_MAX: usize = 1024;

/// How long the output of a program is still read after its end, when a stray child holds it open.
const AFTER_END: Duration = Duration::from_secs(2);

/// The command line as a person would type it, for headers and errors.
pub(crate) fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Is there an executable of this name on the `PATH`?
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Does the command end well? Nothing is shown.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    silent.status().is_ok_and(|status| status.success())
}

/// The standard output of a command that ended well.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .output()
        .map_err(|source| Error::Start { command: show(command), source })?;
    if !output.status.success() {
        let said = last_lines(&String::from_utf8_lossy(&output.stderr));
        return Err(Error::Failed { command: show(command), status: output.status, said });
    }
    String::from_utf8(output.stdout)
        .map_err(|error| Error::Output { command: show(command), what: error.to_string() })
}

/// Runs in view of the user, on the terminal itself; past `limit` it is killed with everything below it.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<()> {
    run_interactive(command.stdin(Stdio::null()), limit)
}

/// As [`run`], with the user's keyboard.
pub(crate) fn run_interactive(command: &mut Command, limit: Duration) -> Result<()> {
    let child = start(command)?;
    let pid = child.id();
    let (send, news) = mpsc::sync_channel(1);
    thread::spawn(move || send_end(child, &send));
    match news.recv_timeout(limit) {
        Ok(News::Ended(Ok(status))) => ended_well(command, status),
        Ok(News::Ended(Err(source))) => Err(Error::Start { command: show(command), source }),
        Ok(News::Line(_)) | Err(_) => {
            kill_tree(pid);
            Err(Error::Overdue { command: show(command), limit })
        }
    }
}

/// How long a program may take to say its first word, and until its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) first_line: Duration,
    pub(crate) whole: Duration,
}

impl From<Duration> for Limits {
    fn from(whole: Duration) -> Self {
        Self { first_line: whole, whole }
    }
}

/// As [`run`], and hands every line of stdout and stderr to `line`, in the order they were written.
pub(crate) fn run_reading(
    command: &mut Command,
    limits: impl Into<Limits>,
    line: &mut dyn FnMut(&str),
) -> Result<()> {
    let limits = limits.into();
    let shown = show(command);
    let failed = |source| Error::Start { command: shown.clone(), source };
    let (reader, writer) = io::pipe().map_err(failed)?;
    let errors = writer.try_clone().map_err(failed)?;
    let child = start(command.stdin(Stdio::null()).stdout(writer).stderr(errors))?;
    // The command keeps copies of the writing end, which would hold the pipe open for ever.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let (send, news) = mpsc::sync_channel(LINES_WAITING_MAX);
    let lines = send.clone();
    thread::spawn(move || forward_lines(BufReader::new(reader), &lines));
    let pid = child.id();
    thread::spawn(move || send_end(child, &send));

    let mut watch = Watch { news, begun: Instant::now(), limit: limits.first_line, status: None };
    if !watch.follow(limits.whole, line) {
        kill_tree(pid);
        return Err(Error::Overdue { command: show(command), limit: watch.limit });
    }
    match watch.status {
        Some(status) => ended_well(command, status.map_err(failed)?),
        None => Err(Error::Output { command: show(command), what: "it ended unseen".into() }),
    }
}

/// What the two threads that follow a program report.
enum News {
    Line(Vec<u8>),
    Ended(io::Result<ExitStatus>),
}

struct Watch {
    news: mpsc::Receiver<News>,
    begun: Instant,
    limit: Duration,
    status: Option<io::Result<ExitStatus>>,
}

impl Watch {
    /// Until the program has ended and its output is read, `true`; or until the deadline, `false`. A stray that still
    /// holds the output open after the end is waited for no longer than [`AFTER_END`].
    fn follow(&mut self, whole: Duration, line: &mut dyn FnMut(&str)) -> bool {
        loop {
            match self.news.recv_timeout(self.limit.saturating_sub(self.begun.elapsed())) {
                Ok(News::Line(bytes)) => {
                    if self.status.is_none() {
                        self.limit = whole;
                    }
                    let text = String::from_utf8_lossy(&bytes);
                    print!("{text}");
                    line(text.trim_end());
                }
                Ok(News::Ended(status)) => {
                    self.status = Some(status);
                    self.limit = self.limit.min(self.begun.elapsed() + AFTER_END);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => return self.status.is_some(),
                Err(mpsc::RecvTimeoutError::Disconnected) => return true,
            }
        }
    }
}

fn forward_lines(mut reader: impl BufRead, news: &mpsc::SyncSender<News>) {
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
        if news.send(News::Line(std::mem::take(&mut bytes))).is_err() {
            return;
        }
    }
}

fn send_end(mut child: Child, news: &mpsc::SyncSender<News>) {
    // Nobody listens any more when the program was overdue.
    let _unheard = news.send(News::Ended(child.wait()));
}

fn start(command: &mut Command) -> Result<Child> {
    command.spawn().map_err(|source| Error::Start { command: show(command), source })
}

fn ended_well(command: &Command, status: ExitStatus) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    Err(Error::Failed { command: show(command), status, said: String::new() })
}

/// Kills a process and all its descendants. They stay in our process group, so that Ctrl-C reaches them too; that is
/// why the tree is walked instead of a group killed.
fn kill_tree(root: u32) {
    let children = children_by_parent();
    let mut pending = vec![root];
    while let Some(pid) = pending.pop() {
        pending.extend(children.get(&pid).into_iter().flatten());
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // It may have ended by itself meanwhile.
            let _gone = kill_process(pid, Signal::KILL);
        }
    }
}

fn children_by_parent() -> HashMap<u32, Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some(parent) = parent_of(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    children
}

/// The parent's pid in a line of `/proc/PID/stat`; the name before it may hold spaces and parentheses.
fn parent_of(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let shown = &lines[lines.len().saturating_sub(SAID_LINES_MAX)..];
    if shown.is_empty() { String::new() } else { format!("\n  {}", shown.join("\n  ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_command_that_fails_is_named_with_what_it_said() {
        let error = output(&mut sh("echo no such pot >&2; exit 3")).unwrap_err().to_string();
        assert!(error.contains("sh -c") && error.contains("exit status: 3"), "{error}");
        assert!(error.ends_with("\n  no such pot"), "{error}");
    }

    #[test]
    fn lines_of_both_streams_arrive_in_order() {
        let mut lines = Vec::new();
        run_reading(&mut sh("echo one; echo two >&2; echo three"), LONG, &mut |line| {
            lines.push(line.to_owned());
        })
        .unwrap();
        assert_eq!(lines, ["one", "two", "three"]);
    }

    #[test]
    fn an_overdue_command_dies_with_its_children() {
        let limit = Duration::from_millis(200);
        let mut pid = String::new();
        let script = "sleep 1000 & echo $!; wait";
        let error = run_reading(&mut sh(script), limit, &mut |line| line.clone_into(&mut pid)).unwrap_err();
        assert!(matches!(error, Error::Overdue { .. }), "{error}");
        wait_for_death(&pid);
        assert!(matches!(run(&mut sh("sleep 1000 & wait"), limit), Err(Error::Overdue { .. })));
    }

    #[test]
    fn a_command_that_never_says_a_word_is_overdue_early() {
        let limits = Limits { first_line: Duration::from_millis(200), whole: LONG };
        let error = run_reading(&mut sh("sleep 1000"), limits, &mut |_| ()).unwrap_err();
        assert!(matches!(error, Error::Overdue { limit, .. } if limit == limits.first_line), "{error}");
        run_reading(&mut sh("echo up; sleep 0.4"), limits, &mut |_| ()).unwrap();
    }

    /// Dead is gone or a zombie: whoever inherited the process may be slow to reap it.
    fn wait_for_death(pid: &str) {
        let deadline = Instant::now() + LONG;
        let alive = || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        while alive() {
            assert!(Instant::now() < deadline, "{pid} is still alive");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_stray_that_holds_the_output_open_is_not_waited_for() {
        let mut stray = String::new();
        let script = "sleep 1000 & echo $!";
        run_reading(&mut sh(script), LONG, &mut |line| line.clone_into(&mut stray)).unwrap();
        let pid = Pid::from_raw(stray.parse().unwrap()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
    }

    #[test]
    fn a_quick_command_is_not_overdue() {
        run(&mut sh("exit 0"), LONG).unwrap();
        assert!(matches!(run(&mut sh("exit 1"), LONG), Err(Error::Failed { .. })));
    }

    #[test]
    fn the_parent_is_found_behind_a_name_with_parentheses() {
        assert_eq!(parent_of("42 (a) b (c)) S 7 42 42 0 -1"), Some(7));
        assert_eq!(parent_of(""), None);
    }
}
