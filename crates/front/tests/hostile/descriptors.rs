//! Out of descriptors: a front in a process of its own that may have few.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use plimsoll_front::{Endpoint, FrontRecord};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::common::client::{connect, get};
use crate::common::upstream::Upstream;
use crate::common::{NAME, PATIENCE, World, instance, pass, until};

/// Names the upstream to the process that is the front.
const UPSTREAM: &str = "PLIMSOLL_TEST_UPSTREAM";
const DESCRIPTORS: u64 = 64;
const CLIENTS: usize = 200;
/// Of one core, while nothing can be accepted.
const BUSY_MAX: f64 = 0.2;

/// What the front says of itself when it is asked.
#[derive(Clone, Copy, Debug)]
struct Said {
    connections: u32,
    cpu: Duration,
    pauses: u32,
}

struct Small {
    child: Child,
    asks: ChildStdin,
    says: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Small {
    fn start(upstream: SocketAddr) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "descriptors::accepting_pauses_and_goes_on", "--nocapture"])
            .env(UPSTREAM, upstream.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let asks = child.stdin.take().unwrap();
        let says = BufReader::new(child.stdout.take().unwrap());
        let mut small = Self { child, asks, says, address: upstream };
        small.address = small.line().parse().unwrap();
        small
    }

    /// What follows the mark; the test runner has its own lines.
    fn line(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.says.read_line(&mut line).unwrap() > 0, "the front's process ended");
            if let Some((_, said)) = line.split_once("> ") {
                return said.trim_end().to_owned();
            }
        }
    }

    fn ask(&mut self) -> Said {
        writeln!(self.asks).unwrap();
        let line = self.line();
        let mut words = line.split(' ').map(|it| it.parse::<u64>().unwrap());
        let mut next = || words.next().unwrap();
        Said {
            connections: u32::try_from(next()).unwrap(),
            cpu: Duration::from_millis(next()),
            pauses: u32::try_from(next()).unwrap(),
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn accepting_pauses_and_goes_on() {
    if let Ok(upstream) = std::env::var(UPSTREAM) {
        return be_small(upstream.parse().unwrap()).await;
    }
    let upstream = Upstream::recording().await;
    let Endpoint::Tcp(address) = upstream.endpoint else { unreachable!() };
    let mut small = Small::start(address);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(connect(small.address).await);
    }
    until("the front to have no more descriptors", || (small.ask().pauses > 0).then_some(())).await;
    let before = small.ask();
    assert!(usize::try_from(before.connections).unwrap() < CLIENTS / 2, "{before:?}");
    let since = Instant::now();
    pass(Duration::from_secs(1)).await;
    let after = small.ask();
    let busy = after.cpu.saturating_sub(before.cpu).as_secs_f64() / since.elapsed().as_secs_f64();
    assert!(busy < BUSY_MAX, "{busy:.2} of a core for nothing");
    assert_eq!(after.pauses, 1, "told once, not with each try");
    // Those who waited in the backlog are served once the others have left.
    let waiting = clients.split_off(CLIENTS - 20);
    drop(clients);
    for mut client in waiting {
        client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).await;
        assert_eq!(client.response().await.unwrap().text(), "ok");
    }
    for _ in 0..50 {
        assert_eq!(get(small.address, "/").await.status(), 200);
    }
}

/// The process that is the front: answers each line with what it is asked for, until there are no more.
async fn be_small(upstream: SocketAddr) {
    setrlimit(Resource::Nofile, Rlimit { current: Some(DESCRIPTORS), maximum: Some(DESCRIPTORS) }).unwrap();
    let world = World::new(|_| {});
    world.front.admit(instance(1), "sample.1", Endpoint::Tcp(upstream));
    tell(&format!("\n> {}", world.http));
    let mut times = 0;
    let mut line = String::new();
    // The parent ends this process; should it have died, so do we.
    let deadline = Instant::now() + PATIENCE * 4;
    while Instant::now() < deadline && std::io::stdin().read_line(&mut line).is_ok_and(|it| it > 0) {
        if let Ok(reports) = tokio::time::timeout(Duration::from_millis(1), world.front.reports()).await {
            let paused = |it: &&FrontRecord| matches!(it, FrontRecord::Said { kind: "accept_paused", .. });
            times += reports.records.iter().filter(paused).count();
        }
        let connections = world.front.counts().connections;
        tell(&format!("> {connections} {} {times}", cpu().as_millis()));
    }
}

fn tell(line: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").unwrap();
}

/// Of this process so far.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}
