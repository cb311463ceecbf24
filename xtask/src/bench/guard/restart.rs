//! From SIGKILL of a service's main process until the next one executes its program, seen in /proc. Each run has a guard
//! of its own, so that each is the first restart, which no back-off delays.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::bench::Setting;
use crate::bench::figure::Figure;
use crate::bench::guard::service::{Program, Service};
use crate::bench::guard::stage::{Stage, signal};
use crate::error::Result;

const SECONDS_MAX: f64 = 0.02;
const READY_WITHIN: Duration = Duration::from_secs(30);

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Figure>> {
    Program::ALL.into_iter().map(|program| measure(setting, program)).collect()
}

fn measure(setting: &Setting<'_>, program: Program) -> Result<Figure> {
    let times: Vec<Duration> =
        (0..setting.runs).map(|_| kill_once(setting, program)).collect::<Result<_>>()?;
    let what = format!("{}: SIGKILL until the next exec", program.name());
    Ok(Figure::times(&what, &times).promised(SECONDS_MAX))
}

fn kill_once(setting: &Setting<'_>, program: Program) -> Result<Duration> {
    let service = Service::new(program)?;
    let stage = Stage::start(setting, &service.config(setting))?;
    stage.wait_for("ready", 1, READY_WITHIN, |_| ())?;
    let first = stage.wait_for_process(program.word(), None, READY_WITHIN)?;
    let begun = Instant::now();
    signal(first, Signal::KILL);
    stage.wait_for_process(program.word(), Some(first), READY_WITHIN)?;
    Ok(begun.elapsed())
}
