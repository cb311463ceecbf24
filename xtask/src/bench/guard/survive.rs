//! SIGKILL of the guard itself, again and again at random moments, under 200 requests a second.
//!
//! `PLIMSOLL_KILLS` says how often; a thousand take twenty minutes. Requests that were in flight at a kill may fail and are
//! counted; any other that fails breaks the promise, and so does any connection that is refused, whenever that is.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::bench::Setting;
use crate::bench::figure::Figure;
use crate::bench::guard::service::{Program, Service};
use crate::bench::guard::stage::{Stage, signal};
use crate::error::Result;

const KILLS_DEFAULT: u32 = 100;
const CLIENTS: u32 = 10;
const REQUESTS_PER_SECOND: u32 = 200;
/// From the answer of one guard to its end, at most: the moment is drawn by lot.
const LIFE_MAX_MS: u64 = 1600;
/// A guard that lives a second is replaced at once, however often. Of those that do not, so many in a row are.
const LIVED_WELL: Duration = Duration::from_millis(1100);
const QUICK_ENDS: u32 = 2;
const FRONT_WITHIN_SECONDS: f64 = 0.25;
const READY_WITHIN: Duration = Duration::from_secs(30);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What the error of a connection that was not had begins with.
const CONNECT: &str = "connect";

/// A request that was not answered well.
#[derive(Debug)]
struct Failed {
    sent: Instant,
    ended: Instant,
    is_refused: bool,
    why: String,
}

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Figure>> {
    let kills = std::env::var("PLIMSOLL_KILLS").ok().and_then(|text| text.parse().ok());
    let (service, port) = (Service::new(Program::Sample)?, Service::new(Program::Sample)?.port());
    let stage = Stage::start(setting, &service.config_with_front(setting, port))?;
    stage.wait_for("ready", 1, READY_WITHIN, |_| ())?;
    let front = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let instance = stage.wait_for_process(Program::Sample.word(), None, READY_WITHIN)?;
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let (failed, killed, answers) = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|index| {
                let (stop, sent) = (&stop, &sent);
                scope.spawn(move || ask_on(front, index, stop, sent))
            })
            .collect();
        let outcome = kill_on(&stage, front, kills.unwrap_or(KILLS_DEFAULT));
        stop.store(true, Ordering::Relaxed);
        let failed: Vec<Failed> =
            clients.into_iter().flat_map(|client| client.join().unwrap_or_default()).collect();
        outcome.map(|(killed, answers)| (failed, killed, answers))
    })?;
    let same = stage.wait_for_process(Program::Sample.word(), None, READY_WITHIN)? == instance;
    // Until it is gone, what dies may still accept.
    let in_flight = |it: &&Failed| killed.iter().any(|(at, gone)| it.sent <= *gone && *at <= it.ended);
    let lost = failed.iter().filter(in_flight).count() as u64;
    let refused = failed.iter().filter(|it| it.is_refused).count() as u64;
    let others: Vec<&Failed> = failed.iter().filter(|it| !in_flight(it)).collect();
    for it in others.iter().take(5) {
        println!("not in flight at a kill, and failed: {}", it.why);
    }
    let (fronts, controls): (Vec<Duration>, Vec<Duration>) = answers.into_iter().unzip();
    Ok(vec![
        Figure::times("SIGKILL of the guard until the front answers again", &fronts)
            .promised(FRONT_WITHIN_SECONDS),
        Figure::times("the same, until the control socket does", &controls),
        Figure::counts("requests failed that were not in flight at a kill", &[others.len() as u64])
            .promised(0.0),
        Figure::counts("connections refused", &[refused]).promised(0.0),
        Figure::counts("requests failed that were in flight, all kills together", &[lost]),
        Figure::counts("requests sent, all together", &[sent.load(Ordering::Relaxed)]),
        Figure::counts("restarts of the service", &[u64::from(!same)]).promised(0.0),
    ])
}

type Answers = Vec<(Duration, Duration)>;
/// The signal was sent, and the process was gone.
type Killed = (Instant, Instant);

fn kill_on(stage: &Stage, front: SocketAddr, kills: u32) -> Result<(Vec<Killed>, Answers)> {
    let socket = stage.folder().join("state/plimsoll.sock");
    let (mut killed, mut answers) = (Vec::new(), Vec::new());
    let (mut lot, mut quick) = (u64::from(std::process::id()), 0);
    for _ in 0..kills {
        lot = lot.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut life = Duration::from_millis((lot >> 33) % LIFE_MAX_MS);
        if quick == QUICK_ENDS {
            life = life.max(LIVED_WELL);
        }
        quick = if life < LIVED_WELL { quick + 1 } else { 0 };
        thread::sleep(life);
        let guard = stage.guard_pid();
        let at = Instant::now();
        signal(guard, Signal::KILL);
        while stage.guard_pid() == guard && at.elapsed() < READY_WITHIN {
            thread::yield_now();
        }
        killed.push((at, Instant::now()));
        // While the old one dies a connection may still reach it, and end with it: then it is asked again.
        let front = until_answered(|| ask(front)).map_err(|why| stage.blame(&why))?;
        let control = until_answered(|| ask_control(&socket)).map_err(|why| stage.blame(&why))?;
        answers.push((front - at, control - at));
    }
    Ok((killed, answers))
}

fn until_answered(ask: impl Fn() -> std::result::Result<(), String>) -> std::result::Result<Instant, String> {
    let until = Instant::now() + READY_WITHIN;
    loop {
        match ask() {
            Ok(()) => return Ok(Instant::now()),
            Err(why) if Instant::now() > until => return Err(format!("no answer after a kill: {why}")),
            Err(_) => {}
        }
    }
}

/// One client at its share of the pace, from when each request was due.
fn ask_on(front: SocketAddr, index: u32, stop: &AtomicBool, asked: &AtomicU64) -> Vec<Failed> {
    let every = Duration::from_secs(u64::from(CLIENTS)) / REQUESTS_PER_SECOND;
    let mut due = Instant::now() + every * index / CLIENTS;
    let mut failed = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due += every;
        let sent = Instant::now();
        asked.fetch_add(1, Ordering::Relaxed);
        if let Err(why) = ask(front) {
            failed.push(Failed { sent, ended: Instant::now(), is_refused: why.starts_with(CONNECT), why });
        }
    }
    failed
}

fn ask(front: SocketAddr) -> std::result::Result<(), String> {
    let connected = TcpStream::connect(front).map_err(|error| format!("{CONNECT}: {error}"))?;
    connected.set_read_timeout(Some(ANSWER_WITHIN)).map_err(|error| error.to_string())?;
    answered(connected, "/health")
}

fn ask_control(socket: &std::path::Path) -> std::result::Result<(), String> {
    let connected = UnixStream::connect(socket).map_err(|error| format!("{CONNECT}: {error}"))?;
    connected.set_read_timeout(Some(ANSWER_WITHIN)).map_err(|error| error.to_string())?;
    answered(connected, "/healthz")
}

fn answered(mut stream: impl Read + Write, path: &str) -> std::result::Result<(), String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| format!("send: {error}"))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| format!("receive: {error}"))?;
    if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(format!("answer: {answer:?}")) }
}
