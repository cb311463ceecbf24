//! From the crossing of the line to the guard's signal, and how far memory gets in between: spikes, and leaks of two
//! rates, of a service in Rust and of one in Node. The kernel's counts say when the line was crossed, and the beginning
//! of the process's end says when the signal came.

use std::thread;
use std::time::Duration;

use crate::bench::Setting;
use crate::bench::figure::Figure;
use crate::bench::guard::observer::{self, Memory, Seen};
use crate::bench::guard::service::{Program, Service};
use crate::bench::guard::stage::Stage;
use crate::error::Result;

const MIB: u64 = 1 << 20;
/// The default line.
const LINE_BYTES: u64 = 300 * MIB;
const SECONDS_MAX: f64 = 0.1;
/// What fills up fast enough to overshoot is promised to stay below its rate times [`SECONDS_MAX`], and this.
const OVERSHOOT_SLACK_BYTES: u64 = 16 * MIB;
/// A leak begins here, so that it shows its rate for long enough and no longer.
const LEVEL_BEFORE_LEAK: u64 = 200 * MIB;
const FILL_RATE: u64 = 400 * MIB;
/// After filling up, until the guard has seen that memory stands still.
const CALM: Duration = Duration::from_millis(1500);
const READY_WITHIN: Duration = Duration::from_secs(30);
const ACTED_WITHIN: Duration = Duration::from_mins(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Growth {
    /// This much within a second.
    Spike {
        size_bytes: u64,
    },
    Leak {
        rate_bytes: u64,
    },
}

const GROWTHS: [Growth; 3] = [
    Growth::Spike { size_bytes: 600 * MIB },
    Growth::Leak { rate_bytes: 30_000_000 },
    Growth::Leak { rate_bytes: 200_000_000 },
];

impl Growth {
    fn name(self) -> String {
        match self {
            Self::Spike { size_bytes } => format!("spike of {} MiB in 1 s", size_bytes / MIB),
            Self::Leak { rate_bytes } => format!("leak of {} MB/s", rate_bytes / 1_000_000),
        }
    }

    fn bytes_per_second(self) -> u64 {
        match self {
            Self::Spike { size_bytes: bytes } | Self::Leak { rate_bytes: bytes } => bytes,
        }
    }

    /// Leaks take long and are measured less often.
    fn runs(self, runs: u32) -> u32 {
        match self {
            Self::Spike { .. } => runs,
            Self::Leak { .. } => runs.div_ceil(3),
        }
    }

    fn overshoot_bytes_max(self) -> u64 {
        self.bytes_per_second() / 10 + OVERSHOOT_SLACK_BYTES
    }
}

pub(super) fn run(setting: &Setting<'_>) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for program in Program::ALL {
        for growth in GROWTHS {
            figures.extend(measure(setting, program, growth)?);
        }
    }
    Ok(figures)
}

fn measure(setting: &Setting<'_>, program: Program, growth: Growth) -> Result<Vec<Figure>> {
    let service = Service::new(program)?;
    let stage = Stage::start(setting, &service.config(setting))?;
    stage.wait_for("ready", 1, READY_WITHIN, |_| ())?;
    let mut seen = Vec::new();
    let mut kernel_kills = 0;
    for run in 0..growth.runs(setting.runs) {
        // Never at the same place between two samples.
        thread::sleep(Duration::from_millis(500 + u64::from(run) * 137 % 1000));
        seen.push(cross(&stage, &service, growth)?);
        stage.wait_for("ready", 1, READY_WITHIN, |event| {
            kernel_kills += u64::from(event.kind == "oom_kill");
        })?;
    }
    let name = format!("{}, {}", program.name(), growth.name());
    Ok(figures(&name, growth, &seen, kernel_kills))
}

fn cross(stage: &Stage, service: &Service, growth: Growth) -> Result<Seen> {
    let pid = stage.wait_for_process(service.program().word(), None, READY_WITHIN)?;
    let memory = Memory::of(pid)?;
    match growth {
        Growth::Spike { size_bytes } => service.spike(size_bytes, Duration::from_secs(1))?,
        Growth::Leak { rate_bytes } => {
            let fill = LEVEL_BEFORE_LEAK.saturating_sub(memory.working_set().unwrap_or(0));
            service.leak(FILL_RATE, fill)?;
            observer::wait_for_level(&memory, LEVEL_BEFORE_LEAK - LEVEL_BEFORE_LEAK / 16, READY_WITHIN)?;
            thread::sleep(CALM);
            service.leak(rate_bytes, LINE_BYTES * 4)?;
        }
    }
    observer::watch(pid, &memory, LINE_BYTES, ACTED_WITHIN)
}

fn figures(name: &str, growth: Growth, seen: &[Seen], kernel_kills: u64) -> Vec<Figure> {
    let times: Vec<Duration> = seen.iter().map(|it| it.over_for).collect();
    let over: Vec<u64> = seen.iter().map(|it| it.over_bytes).collect();
    let blind: Vec<Duration> = seen.iter().map(|it| it.blind).collect();
    #[expect(clippy::cast_precision_loss, reason = "exact up to 8 PiB")]
    let over_max = growth.overshoot_bytes_max() as f64;
    vec![
        Figure::times(&format!("{name}: over the line until the signal"), &times).promised(SECONDS_MAX),
        Figure::bytes(&format!("{name}: overshoot until the signal"), &over).promised(over_max),
        Figure::counts(&format!("{name}: kernel kills"), &[kernel_kills]).promised(0.0),
        Figure::times(&format!("{name}: between two looks of ours"), &blind),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overshoot_promised_is_a_tenth_of_a_second_and_some() {
        let leak = Growth::Leak { rate_bytes: 200_000_000 };
        assert_eq!(leak.overshoot_bytes_max(), 20_000_000 + 16 * MIB);
        assert_eq!((leak.runs(50), leak.name().as_str()), (17, "leak of 200 MB/s"));
    }
}
