//! How many the front can carry that do nothing: ten thousand idle connections, and ten thousand requests held for a
//! service that is not there yet, while another service is used as always.

use std::thread;
use std::time::{Duration, Instant};

use crate::bench::Setting;
use crate::bench::figure::Figure;
use crate::bench::front::crowd::{self, Crowd};
use crate::bench::front::ground::{self, Ground, free_port};
use crate::bench::front::proxy::{self, Kind, Proxy};
use crate::bench::front::upstream::Upstream;
use crate::bench::front::wrk;
use crate::bench::guard::proc;
use crate::bench::guard::stage::Stage;
use crate::error::{Error, Result};

const SIZE_MAX: usize = 10_000;
/// Of a process with fewer descriptors than would do, a proxy keeps two for each client and these for itself.
const DESCRIPTORS_APART: u64 = 2000;
const KIB: f64 = 1024.0;
const IDLE_BYTES_MAX: f64 = 12.0 * KIB;
const HELD_BYTES_MAX: f64 = 16.0 * KIB;
const CORES_WHILE_HELD_MAX: f64 = 0.02;
/// The p99 of others, while ten thousand wait, against that before.
const OTHERS_RATIO_MAX: f64 = 1.5;
/// Until what was just allocated has been written to.
const SETTLE: Duration = Duration::from_secs(2);
const WATCH: Duration = Duration::from_secs(5);
/// Long enough for all that is measured before it.
const BOOT: Duration = Duration::from_secs(40);
const ANSWERED_WITHIN: Duration = Duration::from_secs(90);
const OTHERS_PER_SECOND: u32 = 100;
const KEEP_ALIVE: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const SLOW: &[u8] = b"GET /health HTTP/1.1\r\nHost: slow.test\r\n\r\n";
const OTHER: &[u8] = b"GET /health HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n";

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Figure>> {
    ground::bring(&["nginx", "haproxy", "wrk"])?;
    let room = ground::raise_descriptor_limit().saturating_sub(DESCRIPTORS_APART) / 2;
    let size = usize::try_from(room).unwrap_or(SIZE_MAX).min(SIZE_MAX);
    let kinds = Kind::chosen(setting);
    let is_ours = kinds.contains(&Kind::Plimsoll);
    let mut figures = Vec::new();
    for kind in kinds {
        println!("  {size} idle connections, {} …", kind.name());
        let ground = Ground::new(setting)?;
        let upstream = Upstream::start(&ground)?;
        let proxy = Proxy::start(setting, kind, &ground, upstream.port)?;
        figures.push(idle(&proxy, size)?);
    }
    if is_ours {
        println!("  {size} requests held …");
        figures.extend(held(setting, size)?);
    }
    Ok(figures)
}

/// Resident memory for each connection that has been answered once and then says nothing.
fn idle(proxy: &Proxy, size: usize) -> Result<Figure> {
    // Pools and allocators are warm before anything is counted.
    wrk::run(&format!("http://127.0.0.1:{}/", proxy.http), 2, false)?;
    thread::sleep(SETTLE);
    let before = proxy.rss_bytes()?;
    let opened = Instant::now();
    let mut crowd = Crowd::send(proxy.http, size, KEEP_ALIVE)?;
    let answers = crowd.answers(ANSWERED_WITHIN);
    if answers.badly > 0 {
        return Err(Error::Check(format!(
            "{} failed {} of {size} requests",
            proxy.kind.name(),
            answers.badly
        )));
    }
    thread::sleep(SETTLE);
    let each = proxy.rss_bytes()?.saturating_sub(before) / size as u64;
    let closed = crowd.answered();
    if closed > 0 {
        let (name, age) = (proxy.kind.name(), opened.elapsed());
        return Err(Error::Check(format!(
            "{name} closed {closed} of {size} idle connections within {age:?}"
        )));
    }
    let figure =
        Figure::bytes(&format!("{} idle connections, {}: RSS of each", size, proxy.kind.name()), &[each]);
    Ok(if proxy.kind == Kind::Plimsoll { figure.promised(IDLE_BYTES_MAX) } else { figure })
}

fn held(setting: &Setting<'_>, size: usize) -> Result<Vec<Figure>> {
    let port = free_port()?;
    let stage = Stage::start(setting, &config(&setting.plimsoll, port))?;
    let booting = Instant::now();
    proxy::wait_for_port(port).map_err(|error| stage.blame(&error.to_string()))?;
    wait_for_others(port)?;
    let before = others(port, WATCH)?;
    let memory = rss_bytes(&stage)?;
    let mut crowd = Crowd::send(port, size, SLOW)?;
    thread::sleep(SETTLE);
    let each = rss_bytes(&stage)?.saturating_sub(memory) / size as u64;
    let share = cores_over(&stage, WATCH);
    let during = others(port, WATCH)?;
    let early = crowd.answered();
    if early > 0 || booting.elapsed() > BOOT {
        let after = booting.elapsed();
        return Err(Error::Check(format!(
            "{early} of {size} requests were answered before the service was up, after {after:?}"
        )));
    }
    let left = BOOT.saturating_sub(booting.elapsed());
    let answers = crowd.answers(left + ANSWERED_WITHIN);
    let flow = answers.last.zip(answers.first).map(|(last, first)| last.saturating_sub(first));
    let name = |what: &str| format!("{size} held requests: {what}");
    Ok(vec![
        Figure::bytes(&name("RSS of each"), &[each]).promised(HELD_BYTES_MAX),
        Figure::cores(&name("share of a core while they wait"), &[share]).promised(CORES_WHILE_HELD_MAX),
        Figure::counts(&name("not answered well"), &[answers.badly]).promised(0.0),
        Figure::counts(&name("answered well"), &[answers.well]),
        Figure::times(&name("from the first answer to the last"), &flow.into_iter().collect::<Vec<_>>()),
        Figure::times("another service before", &before),
        Figure::times("another service meanwhile, p99 compared", &during)
            .compared(p99(&during).zip(p99(&before)).map(|(during, before)| during / before))
            .promised_ratio_at_most(OTHERS_RATIO_MAX),
    ])
}

fn p99(times: &[Duration]) -> Option<f64> {
    let seconds: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
    crate::bench::stats::Summary::of(&seconds).map(|summary| summary.p99)
}

fn config(plimsoll: &std::path::Path, port: u16) -> String {
    let service = |name: &str, boot: Duration| {
        format!(
            "[service.{name}]\ncommand = [\"{}\", \"sample-service\", \"--boot-ms\", \"{}\"]\n\
             env = {{ DATABASE = \"{{folder}}/{name}.db\" }}\n\
             [service.{name}.health]\nhttp = \"/health\"\nstart_period = \"3m\"\n\
             [service.{name}.descriptors]\nlimit = 20000\n",
            plimsoll.display(),
            boot.as_millis(),
        )
    };
    let route = |name: &str| format!("[[front.route]]\nhost = \"{name}.test\"\nservice = \"{name}\"\n");
    format!(
        "{}{}[front]\nhttp = \"127.0.0.1:{port}\"\nhold_wait = \"3m\"\nhold_requests = 20000\n{}{}",
        service("slow", BOOT),
        service("other", Duration::ZERO),
        route("slow"),
        route("other"),
    )
}

fn rss_bytes(stage: &Stage) -> Result<u64> {
    let pids = proxy::guard_pids(stage).into_iter();
    pids.map(|pid| proc::resident(pid).map(|resident| resident.rss_bytes)).sum()
}

fn cores_over(stage: &Stage, time: Duration) -> f64 {
    let cpu = || proxy::guard_pids(stage).into_iter().map(proc::threads_cpu_time).sum::<Duration>();
    let (begun, before) = (Instant::now(), cpu());
    thread::sleep(time);
    cpu().saturating_sub(before).as_secs_f64() / begun.elapsed().as_secs_f64()
}

/// The first request is held as well, until that service is up.
fn wait_for_others(port: u16) -> Result<()> {
    let found = runtime()?.block_on(crowd::one(port, OTHER));
    found.ok_or_else(|| Error::Check("the other service does not answer".into()))
}

/// How long requests to the other service take, each from when it is due.
fn others(port: u16, lasts: Duration) -> Result<Vec<Duration>> {
    let (times, failed) = runtime()?.block_on(async {
        let mut asking = tokio::task::JoinSet::new();
        let begun = Instant::now();
        for number in 0_u32.. {
            let due = begun + Duration::from_secs(1) * number / OTHERS_PER_SECOND;
            if due > begun + lasts {
                break;
            }
            tokio::time::sleep_until(due.into()).await;
            asking.spawn(async move { crowd::one(port, OTHER).await.map(|()| due.elapsed()) });
        }
        let ends = asking.join_all().await;
        let failed = ends.iter().filter(|end| end.is_none()).count();
        (ends.into_iter().flatten().collect::<Vec<_>>(), failed)
    });
    if failed > 0 {
        return Err(Error::Check(format!("{failed} requests to the other service failed")));
    }
    Ok(times)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Error::file("start", "the runtime"))
}
