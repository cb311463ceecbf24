//! What the guard itself uses, with one, a hundred and a thousand services that do nothing.

use std::fmt::Write;
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::Setting;
use crate::bench::figure::Figure;
use crate::bench::guard::proc::{self, Resident};
use crate::bench::guard::stage::Stage;
use crate::error::Result;

const MIB: f64 = 1_048_576.0;
/// Services, and the resident memory that is promised with so many.
const SIZES: [(usize, f64); 3] = [(1, 15.0 * MIB), (100, 20.0 * MIB), (1000, 32.0 * MIB)];
const INIT_RSS_BYTES_MAX: f64 = 2.0 * MIB;
const CORES_MAX: f64 = 0.01;
const READY_WITHIN: Duration = Duration::from_mins(2);
/// From the last service's start until memory and pace are what they stay: two minutes of measurements are kept of each.
const SETTLE: Duration = Duration::from_secs(125);
/// Looks at the memory, a second apart; the processor time is measured over all of it.
const LOOKS: u32 = 30;

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Figure>> {
    // They settle side by side; together they use about what the largest does.
    let stages: Vec<Stage> =
        SIZES.iter().map(|(services, _)| start(setting, *services)).collect::<Result<_>>()?;
    thread::sleep(SETTLE);
    let mut figures = Vec::new();
    for ((services, rss_bytes_max), stage) in SIZES.into_iter().zip(&stages) {
        figures.extend(measure(stage, services, rss_bytes_max)?);
    }
    Ok(figures)
}

fn start(setting: &Setting<'_>, services: usize) -> Result<Stage> {
    let stage = Stage::start(setting, &config(services))?;
    stage.wait_for("ready", services, READY_WITHIN, |_| ())?;
    Ok(stage)
}

fn measure(stage: &Stage, services: usize, rss_bytes_max: f64) -> Result<Vec<Figure>> {
    let (init, guard) = (stage.pid(), stage.guard_pid());
    let cpu_time = || Ok(proc::cpu_time(init)? + proc::cpu_time(guard)?);
    let (begun, cpu_before) = (Instant::now(), cpu_time()?);
    let looks: Vec<[Resident; 2]> = (0..LOOKS).map(|_| look(init, guard)).collect::<Result<_>>()?;
    let cpu = cpu_time()?.saturating_sub(cpu_before);
    let share = cpu.as_secs_f64() / begun.elapsed().as_secs_f64();
    let of =
        |value: fn(&Resident) -> u64| looks.iter().map(|it| it.iter().map(value).sum()).collect::<Vec<_>>();
    let init: Vec<u64> = looks.iter().map(|[init, _]| init.rss_bytes).collect();
    let name = |what: &str| format!("{services} services: {what}");
    Ok(vec![
        Figure::bytes(&name("RSS"), &of(|it| it.rss_bytes)).promised(rss_bytes_max),
        Figure::bytes(&name("RSS of init alone"), &init).promised(INIT_RSS_BYTES_MAX),
        Figure::bytes(&name("PSS"), &of(|it| it.pss_bytes)),
        Figure::cores(&name("share of a core over 30 s"), &[share]).promised(CORES_MAX),
    ])
}

fn look(init: u32, guard: u32) -> Result<[Resident; 2]> {
    thread::sleep(Duration::from_secs(1));
    Ok([proc::resident(init)?, proc::resident(guard)?])
}

fn config(services: usize) -> String {
    let mut config = String::new();
    for number in 0..services {
        // Writing to a String does not fail.
        let _ = write!(
            config,
            "[service.idle-{number}]\ncommand = [\"sleep\", \"infinity\"]\nport_env = false\nhealth = {{ tcp = false }}\n"
        );
    }
    config
}
