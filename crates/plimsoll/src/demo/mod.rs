//! `plimsoll demo`: every layer at work on the sample service, with nothing installed.
//!
//! The demo is a user with a stopwatch. It writes a configuration, runs the guard as anybody would, sends traffic,
//! breaks the service through its own switches, and believes only what the guard's events, its status and the traffic
//! say. It knows nothing of the guard's inside.

mod board;
mod event;
mod fault;
mod gauge;
mod guard;
mod http;
mod nap;
mod plain;
mod report;
mod screen;
mod show;
mod stage;
mod switch;
mod tally;
mod traffic;

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::LocalSet;
use tokio::time::sleep;

use crate::cli::{Demo, Exit};
use board::{Board, Tone};
use guard::Guard;
use report::{INTERRUPTED, Report};
use screen::{Ended, Screen};
use show::Cast;
use stage::Stage;

/// Past this the show is over, whatever is still to come.
const SHOW_MAX: Duration = Duration::from_mins(2);

/// Why there was no show.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("cannot find our own program: {0}")]
    Program(#[source] io::Error),
    #[error("cannot write the demo's temporary folder (TMPDIR says where it is made): {0}")]
    Folder(#[source] io::Error),
    #[error("the path {} is not UTF-8 and cannot be written into a configuration", .0.display())]
    Name(PathBuf),
    #[error("no loopback port could be had: {0}")]
    Port(#[source] io::Error),
    #[error("cannot start the guard: {0}")]
    Guard(#[source] io::Error),
    #[error("cannot start the runtime: {0}")]
    Runtime(#[source] io::Error),
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

impl DemoError {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Folder(source) if source.kind() == io::ErrorKind::PermissionDenied => Exit::NotPermitted,
            // A reader that has seen enough (`| head`) is no fault.
            Self::Print(source) if source.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Program(_)
            | Self::Folder(_)
            | Self::Name(_)
            | Self::Port(_)
            | Self::Guard(_)
            | Self::Runtime(_)
            | Self::Print(_) => Exit::Internal,
        }
    }
}

/// Plays the show and writes its table to `out`. `Exit::No`: a layer did not do its work, or the show broke off.
/// Nothing of it is left, however it ends: no process, no folder.
pub fn run(args: &Demo, out: &mut impl Write) -> Result<Exit, DemoError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(DemoError::Runtime)?;
    let report = LocalSet::new().block_on(&runtime, perform(args, out))?;
    if args.json {
        writeln!(out, "{}", report.json())?;
    } else {
        write!(out, "\n{}", report.text())?;
    }
    out.flush()?;
    Ok(if report.is_well() { Exit::Done } else { Exit::No })
}

async fn perform(args: &Demo, out: &mut impl Write) -> Result<Report, DemoError> {
    let mut ends = Ends::watch().map_err(DemoError::Runtime)?;
    let stage = Stage::set()?;
    let (mut guard, output) = Guard::start(&stage)?;
    let board = Rc::new(Board::new());
    announce(&board, &guard);
    let cast = Cast { board: &board, stage: &stage, guard: guard.pid() };
    let mut face = Face::choose(args, out);
    let broken_off = tokio::select! {
        done = show::play(cast) => done.err(),
        why = face.show(&board) => Some(why),
        () = ends.asked() => Some(INTERRUPTED.to_owned()),
        () = sleep(SHOW_MAX) => Some(format!("it took longer than {} s", SHOW_MAX.as_secs())),
        () = attend(&board, &stage, output) => Some("nobody attends to it".to_owned()),
    };
    face.leave(&board)?;
    let mut report = board.look(|scene| Report::of(scene, broken_off));
    report.left_behind = guard.stop();
    report.add_words_of_the_guard(&guard::complaints(&stage.complaints()));
    Ok(report)
}

/// All that goes on beside the director: listening to the guard, looking at the service, sending it requests.
async fn attend(board: &Rc<Board>, stage: &Stage, output: tokio::net::unix::pipe::Receiver) {
    let traffic = async {
        // Requests before there was a service would count as failed.
        let far = std::time::Instant::now() + SHOW_MAX;
        let _ = board.until(far, |scene| scene.service.state == "ready").await;
        traffic::send(Rc::clone(board), stage.front).await;
    };
    tokio::join!(
        guard::listen(Rc::clone(board), output),
        gauge::read(Rc::clone(board), stage.socket()),
        traffic
    );
}

fn announce(board: &Board, guard: &Guard) {
    board.write(|scene| {
        let (line, wall, descriptors) = (stage::LINE_MIB, stage::WALL_MIB, stage::DESCRIPTORS_MAX);
        let rate = traffic::PER_SECOND;
        scene.note(
            Tone::Plain,
            format!("the guard runs (pid {}) and starts the sample service", guard.pid().as_raw_nonzero()),
        );
        scene.note(
            Tone::Plain,
            format!("line {line} MiB, wall {wall} MiB, {descriptors} descriptors; {rate} requests a second"),
        );
    });
}

/// How the show is shown.
enum Face<'a, W> {
    Live(Screen),
    Plain {
        out: &'a mut W,
        /// Lines written so far.
        written: usize,
    },
    Silent,
}

impl<'a, W: Write> Face<'a, W> {
    fn choose(args: &Demo, out: &'a mut W) -> Self {
        if args.json {
            return Self::Silent;
        }
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        let live = !args.plain && !dumb && io::stdout().is_terminal();
        match live.then(Screen::take).flatten() {
            Some(screen) => Self::Live(screen),
            None => Self::Plain { out, written: 0 },
        }
    }

    /// Goes on until the show can be shown no longer, and says why.
    async fn show(&mut self, board: &Board) -> String {
        match self {
            Self::Live(screen) => match screen.face(board).await {
                Ended::Quit => INTERRUPTED.to_owned(),
                Ended::Terminal(error) => format!("the terminal failed: {error}"),
            },
            Self::Plain { out, written } => {
                format!("cannot print: {}", plain::face(board, written, *out).await)
            }
            Self::Silent => std::future::pending().await,
        }
    }

    /// Gives the terminal back, or writes what has not been written.
    fn leave(self, board: &Board) -> io::Result<()> {
        match self {
            Self::Plain { out, mut written } => plain::write_new(board, &mut written, out),
            Self::Live(_) | Self::Silent => Ok(()),
        }
    }
}

/// The signals that end the show early.
struct Ends([Signal; 3]);

impl Ends {
    fn watch() -> io::Result<Self> {
        let on = |kind| signal(kind);
        Ok(Self([on(SignalKind::interrupt())?, on(SignalKind::terminate())?, on(SignalKind::hangup())?]))
    }

    async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
