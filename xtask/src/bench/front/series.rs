//! One fault, many times over, under load: what happened to the users each time.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::Setting;
use crate::bench::figure::Figure;
use crate::bench::front::load::{Done, Load};
use crate::bench::front::proxy::Kind;
use crate::bench::front::subject::Subject;
use crate::bench::front::verdict::{self, Blow, Verdict};
use crate::bench::guard::service::Program;
use crate::error::{Error, Result};

/// Before the first blow.
const WARM_UP: Duration = Duration::from_secs(2);
/// From a service that stands to the next blow, and up to half a second more.
const CALM: Duration = Duration::from_millis(400);
/// A request that is held this long will not be answered.
const BACK_WITHIN: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_millis(2);
/// In seconds; on top of the service's own boot.
const GAP_SLACK_MAX: f64 = 0.05;
const HANG_MAX: f64 = 5.0;
/// A hang takes seconds; so many fewer are enough.
const RUNS_PER_HANG: u32 = 10;
const FAILURES_SHOWN_MAX: usize = 6;

static SERIES: AtomicU32 = AtomicU32::new(0);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Recycle,
    Kill,
    Hang,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Series {
    pub(super) front: Kind,
    pub(super) program: Program,
    pub(super) fault: Fault,
    pub(super) handover: &'static str,
}

/// What a series brought.
struct Seen {
    verdict: Verdict,
    gaps: Vec<Duration>,
    /// Of a copy of the service, at each blow.
    boots: Vec<Duration>,
    /// From when a request was due until it was answered, whatever the answer.
    latencies: Vec<Duration>,
    /// How late the generator was with a request.
    late: Vec<Duration>,
    closed: u64,
}

impl Series {
    fn name(self) -> String {
        let fault = match self.fault {
            Fault::Recycle => "recycle",
            Fault::Kill => "SIGKILL",
            Fault::Hang => "hang",
        };
        let front = if self.front == Kind::Plimsoll {
            String::new()
        } else {
            format!(" behind {}", self.front.name())
        };
        format!("{}{front}, {fault}, {}", self.program.name(), self.handover)
    }

    fn runs(self, runs: u32) -> u32 {
        if self.fault == Fault::Hang { runs.div_ceil(RUNS_PER_HANG) } else { runs }
    }

    pub(super) fn run(self, setting: &Setting<'_>) -> Result<Vec<Figure>> {
        println!("  {} …", self.name());
        let subject = Subject::start(setting, self.program, self.front, self.handover)?;
        let number = SERIES.fetch_add(1, Ordering::Relaxed);
        let load = Load::start(subject.port, format!("bench-{}-{number}", std::process::id()));
        thread::sleep(WARM_UP);
        let blows = self.strike_all(setting, &subject, &load);
        // The load's thread is not left behind, whatever went wrong.
        let done = load.stop()?;
        let (blows, boots) = blows?;
        let stored = subject.store()?.titles()?;
        let seen = look(&done, &blows, boots, &stored);
        for (failure, times) in seen.verdict.failures.iter().take(FAILURES_SHOWN_MAX) {
            println!("    {times} x {failure}");
        }
        Ok(self.figures(&seen))
    }

    /// A promise of which nothing was measured is not kept.
    pub(super) fn unmeasured(self, error: &Error) -> Figure {
        let what = format!("{}: not measured: {}", self.name(), error.to_string().replace('\n', " "));
        println!("    {what}");
        Figure::counts(&what, &[]).promised(0.0)
    }

    fn strike_all(
        self,
        setting: &Setting<'_>,
        subject: &Subject,
        load: &Load,
    ) -> Result<(Vec<Blow>, Vec<Duration>)> {
        let (mut blows, mut boots) = (Vec::<Blow>::new(), Vec::new());
        for run in 0..self.runs(setting.runs) {
            // Never at the same place between two looks of the guard.
            thread::sleep(CALM + Duration::from_millis(u64::from(run) * 137 % 500));
            let blow = self.strike(subject, load)?;
            if self.fault == Fault::Kill {
                boots.push(subject.boot_once(setting)?);
            }
            blows.push(Blow { until: Instant::now(), ..blow });
        }
        Ok((blows, boots))
    }

    /// Until the service stands again and users are answered.
    fn strike(self, subject: &Subject, load: &Load) -> Result<Blow> {
        let first = subject.wait_until_it_stands(None)?;
        let begun = Instant::now();
        let (at, gone) = match self.fault {
            Fault::Recycle => {
                subject.recycle()?;
                (begun, Instant::now())
            }
            Fault::Kill => Subject::kill(first),
            Fault::Hang => {
                subject.hang(first)?;
                (begun, begun)
            }
        };
        subject.wait_until_it_stands(Some(first.pid))?;
        let gone = if self.fault == Fault::Hang { Instant::now() } else { gone };
        wait_for_successes(load)?;
        Ok(Blow { at, gone, until: gone })
    }

    fn figures(self, seen: &Seen) -> Vec<Figure> {
        let (ours, verdict) = (self.front == Kind::Plimsoll, &seen.verdict);
        let name = |what: &str| format!("{}: {what}", self.name());
        let none = |figure: Figure| if ours { figure.promised(0.0) } else { figure };
        let count = |what: &str, count: u64| Figure::counts(&name(what), &[count]);
        let gets = count("GETs failed", verdict.safe_failed);
        let mut figures = vec![
            count("requests", verdict.requests),
            // What waits for a service that hangs may be more than is tried again.
            if self.fault == Fault::Hang { gets } else { none(gets) },
            none(count("POSTs failed, not in flight", verdict.unsafe_failed_otherwise)),
            none(count("POSTs carried out twice", verdict.carried_out_twice)),
            none(count("POSTs answered and lost", verdict.answered_and_lost)),
            Figure::times(&name("from due to answered"), &seen.latencies),
            Figure::times(&name("our own lateness"), &seen.late),
        ];
        if self.fault == Fault::Recycle {
            figures.push(none(count("POSTs failed in flight", verdict.unsafe_failed_in_flight)));
            figures.push(none(count("kept connections closed", seen.closed)));
        } else {
            figures.push(count("POSTs failed in flight", verdict.unsafe_failed_in_flight));
            figures.push(count("POSTs failed and carried out", verdict.done_but_failed));
            figures.push(count("kept connections closed", seen.closed));
        }
        figures.extend(self.gap_figures(seen, ours));
        figures
    }

    fn gap_figures(self, seen: &Seen, ours: bool) -> Vec<Figure> {
        let name = |what: &str| format!("{}: {what}", self.name());
        let gap = Figure::times(&name("longest gap"), &seen.gaps);
        let promised = |figure: Figure, limit| if ours { figure.promised(limit) } else { figure };
        match (self.fault, self.handover) {
            (Fault::Recycle, _) => vec![gap],
            (Fault::Hang, _) => vec![promised(gap, HANG_MAX)],
            (Fault::Kill, "standby") => vec![promised(gap, GAP_SLACK_MAX)],
            (Fault::Kill, _) => {
                // A copy boots after the gap, and no two boots are alike: a gap is held against the slow ones of them.
                let boot = Figure::times(&name("boot of a copy, between the kills"), &seen.boots);
                let slow = boot.p99().map_or(Duration::ZERO, Duration::from_secs_f64);
                let beyond: Vec<Duration> = seen.gaps.iter().map(|gap| gap.saturating_sub(slow)).collect();
                let beyond = Figure::times(&name("longest gap beyond the p99 of a boot"), &beyond);
                vec![gap, boot, promised(beyond, GAP_SLACK_MAX)]
            }
        }
    }
}

/// In a hang or a kill the guard may think that all is well before users do.
fn wait_for_successes(load: &Load) -> Result<()> {
    let (begun, before) = (Instant::now(), load.done());
    while load.done() < before + 4 {
        if begun.elapsed() > BACK_WITHIN {
            return Err(Error::Check(format!("nobody was answered for {BACK_WITHIN:?}")));
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

fn look(
    done: &Done,
    blows: &[Blow],
    boots: Vec<Duration>,
    stored: &crate::bench::front::store::Titles,
) -> Seen {
    let outcomes = &done.outcomes;
    Seen {
        verdict: verdict::judge(outcomes, blows, stored),
        gaps: verdict::gaps(outcomes, blows),
        boots,
        latencies: outcomes.iter().map(|it| it.ended.saturating_duration_since(it.intended)).collect(),
        late: outcomes.iter().map(|it| it.begun.saturating_duration_since(it.intended)).collect(),
        closed: done.closed,
    }
}
