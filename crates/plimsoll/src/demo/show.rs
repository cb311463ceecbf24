//! The director: sets off each fault in its turn, waits for what must follow, and judges it.

use std::time::{Duration, Instant};

use hyper::Method;
use plimsoll_core::Layer;
use rustix::process::Pid;
use tokio::time::timeout;

use super::board::{Board, Incident, Missed, Scene, Tone};
use super::fault::{FAULTS, Fault};
use super::http;
use super::nap::Nap;
use super::report::{Row, span};
use super::stage::Stage;
use super::switch;
use super::tally::Window;

/// For guard and service to come up, also on a busy host.
const READY_MAX: Duration = Duration::from_secs(20);
/// From a fault until it is over. Ten seconds of it are the guard's own wait for calm after crashes in a row.
const FAULT_MAX: Duration = Duration::from_secs(30);
/// For the service to answer again after a fault that went wrong.
const RESTART_MAX: Duration = Duration::from_secs(10);
/// For an order to the guard.
const ORDER_MAX: Duration = Duration::from_secs(2);
/// Requests in a row that show that the service is back: half a second.
const STREAK: u32 = 25;
/// Requests before the first fault: a second and a half, to show how it is when all is well.
const STREAK_BEFORE: u32 = 75;
const GUARD_ENDED: &str = "the guard ended";

/// Who plays.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cast<'a> {
    pub(super) board: &'a Board,
    pub(super) stage: &'a Stage,
    pub(super) guard: Pid,
}

/// Plays it to the end, or says why it broke off.
pub(super) async fn play(cast: Cast<'_>) -> Result<(), String> {
    let board = cast.board;
    let deadline = Instant::now() + READY_MAX;
    board.until(deadline, |scene| scene.service.state == "ready").await.map_err(|missed| match missed {
        Missed::TooLate => format!("the service was not ready within {} s", READY_MAX.as_secs()),
        Missed::GuardEnded => "the guard ended before the service was ready".to_owned(),
    })?;
    let before = board.until(deadline, |scene| scene.tally.streak() >= STREAK_BEFORE).await;
    before.map_err(|missed| match missed {
        Missed::TooLate => "the service does not answer its traffic".to_owned(),
        Missed::GuardEnded => GUARD_ENDED.to_owned(),
    })?;
    let wall = board.look(|scene| scene.service.enforced_by(Layer::HardWall.name()).map(str::to_owned));
    let wall_by_kernel = wall.is_some_and(|by| by != "sampling");
    for (number, fault) in FAULTS.iter().enumerate() {
        act(cast, number, fault, wall_by_kernel).await?;
    }
    board.write(|scene| scene.act = None);
    Ok(())
}

async fn act(
    cast: Cast<'_>,
    number: usize,
    fault: &'static Fault,
    wall_by_kernel: bool,
) -> Result<(), String> {
    let board = cast.board;
    let expected = fault.expected(wall_by_kernel);
    let incidents_before = board.write(|scene| {
        scene.act = Some(number);
        scene.tally.open_window();
        scene.note(Tone::Fault, format!("fault {} of {}: {}", number + 1, FAULTS.len(), fault.name));
        scene.incidents.len()
    });
    let injected = Instant::now();
    let injection = inject(cast, fault, wall_by_kernel).await;
    if injection.is_ok() {
        let settled = |scene: &Scene| is_settled(scene, incidents_before, expected);
        // What was missed by the deadline is found out by the judge.
        if board.until(injected + FAULT_MAX, settled).await == Err(Missed::GuardEnded) {
            return Err(GUARD_ENDED.to_owned());
        }
    }
    let is_well = board.write(|scene| {
        scene.tally.note_silence(Instant::now());
        let mut row = judge(scene, number, fault, expected, injected, incidents_before);
        if let Err(why) = injection {
            row.problem = Some(format!("could not be injected: {why}"));
        }
        tell(scene, &row);
        let is_well = row.is_well();
        scene.rows.push(row);
        is_well
    });
    if !is_well {
        start_afresh(cast).await;
    }
    Ok(())
}

/// Presses the switch; where the kernel alone is to act, with the guard asleep until it has.
async fn inject(cast: Cast<'_>, fault: &Fault, wall_by_kernel: bool) -> Result<(), String> {
    let service = cast.board.look(|scene| scene.service.pid);
    let nap = (fault.guard_sleeps && wall_by_kernel).then(|| Nap::of(cast.guard)).zip(service);
    if nap.is_some() {
        let text = "the guard is put to sleep (SIGSTOP): the wall has to hold without it";
        cast.board.note(Tone::Plain, text.to_owned());
    }
    switch::press(cast.stage, fault).await?;
    if let Some((nap, service)) = nap {
        let (tone, what) = if nap.until_dead(service).await {
            (Tone::Plain, "the kernel has killed at the wall; the guard is woken")
        } else {
            (Tone::Bad, "the kernel has not killed at the wall; the guard is woken")
        };
        cast.board.note(tone, what.to_owned());
    }
    Ok(())
}

/// One incident with the layer's cause, closed, and the service answers again.
fn is_settled(scene: &Scene, incidents_before: usize, expected: Layer) -> bool {
    let [incident] = &scene.incidents[incidents_before..] else { return false };
    found_by(incident, expected).is_some() && incident.closed.is_some() && scene.tally.streak() >= STREAK
}

fn found_by(incident: &Incident, layer: Layer) -> Option<Instant> {
    incident.layers.iter().find(|(name, _)| name == layer.name()).map(|(_, at)| *at)
}

fn judge(
    scene: &Scene,
    number: usize,
    fault: &'static Fault,
    expected: Layer,
    injected: Instant,
    incidents_before: usize,
) -> Row {
    let incidents = &scene.incidents[incidents_before..];
    let first = incidents.first();
    let found = incidents.iter().find_map(|incident| found_by(incident, expected));
    let detected = found.map(|at| at.saturating_duration_since(scene.onset(fault.shows, injected, at)));
    // Window 0 is before the first fault.
    let traffic = scene.tally.window(number + 1);
    let problem = match (incidents, found) {
        ([], _) => Some("no incident was opened".to_owned()),
        ([_, _, ..], _) => Some(format!("{} incidents were opened instead of one", incidents.len())),
        (_, None) => Some(format!("{} did not act", expected.name())),
        ([incident], _) if incident.closed.is_none() => {
            Some(format!("the incident was still open after {}", span(FAULT_MAX)))
        }
        _ if scene.tally.streak() < STREAK => Some("the service does not answer again".to_owned()),
        _ if traffic.failed > 0 => Some(format!("{} requests were lost", traffic.failed)),
        _ if fault.planned && traffic.unsure > 0 => {
            Some(format!("{} requests were in flight when it was stopped", traffic.unsure))
        }
        _ => None,
    };
    Row {
        fault: fault.name,
        expected,
        acted: incidents.iter().flat_map(|incident| &incident.layers).map(|(name, _)| name.clone()).collect(),
        detected,
        traffic,
        dark_told: first.and_then(|incident| incident.dark),
        problem,
    }
}

fn tell(scene: &mut Scene, row: &Row) {
    let traffic = row.traffic;
    let (tone, what) = match &row.problem {
        None => (Tone::Good, format!("ok: {}", row.layer())),
        Some(problem) => (Tone::Bad, format!("NOT OK: {problem}; acted: {}", row.layer())),
    };
    let detected = row.detected.map_or(String::new(), |after| format!(", detected in {}", span(after)));
    let dark = span(traffic.dark);
    let Window { sent, failed, unsure, .. } = traffic;
    let unsure = if unsure > 0 { format!(", {unsure} of unknown outcome") } else { String::new() };
    scene.note(tone, format!("{what}{detected}, dark for {dark}, {failed} of {sent} lost{unsure}"));
}

/// After a fault that went wrong: a new instance, so that the next fault is judged by itself.
async fn start_afresh(cast: Cast<'_>) {
    let board = cast.board;
    let old = board.write(|scene| {
        scene.tally.break_streak();
        let text = "plimsoll restart: the next fault begins with a new instance";
        scene.note(Tone::Plain, text.to_owned());
        scene.service.instance.clone()
    });
    if let Err(why) = order(cast.stage, "/api/v1/services/reports/restart").await {
        board.note(Tone::Bad, why);
    }
    let is_back = |scene: &Scene| {
        let new = scene.service.instance != old && scene.service.state == "ready";
        new && scene.open_incident().is_none() && scene.tally.streak() >= STREAK
    };
    if board.until(Instant::now() + RESTART_MAX, is_back).await.is_err() {
        board.note(Tone::Bad, "the service is not well, and the show goes on".to_owned());
    }
}

async fn order(stage: &Stage, target: &'static str) -> Result<(), String> {
    let answer = async {
        let mut guard = http::over_unix(&stage.socket()).await?;
        http::exchange(&mut guard, http::request(Method::POST, target, String::new(), false)).await
    };
    match timeout(ORDER_MAX, answer).await {
        Ok(Ok((head, _))) if head.status.is_success() => Ok(()),
        Ok(Ok((_, body))) => Err(format!("the guard refused {target}: {}", String::from_utf8_lossy(&body))),
        Ok(Err(error)) => Err(format!("the guard did not take {target}: {error}")),
        Err(_) => Err(format!("the guard did not answer {target} within {} s", ORDER_MAX.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::event::Event;

    fn told(board: &Board, kind: &str, layer: Option<&str>) {
        let event = Event {
            kind: kind.to_owned(),
            who: "reports.1".to_owned(),
            layer: layer.map(str::to_owned),
            message: String::new(),
            severity: "warning".to_owned(),
            incident: Some(1),
            dark_ms: None,
        };
        board.write(|scene| scene.told(&event, Instant::now()));
    }

    fn answers(board: &Board, count: u32) {
        board.write(|scene| {
            for _ in 0..count {
                let ticket = scene.tally.sent();
                scene.tally.answered(ticket, Instant::now(), Instant::now());
            }
        });
    }

    fn judged(board: &Board) -> Row {
        let crash = FAULTS.iter().find(|fault| fault.name == "crash").expect("it is there");
        board.look(|scene| judge(scene, 0, crash, Layer::Recovery, scene.started, 0))
    }

    #[test]
    fn each_thing_that_is_missing_is_named() {
        let board = Board::new();
        let problem = |board: &Board| judged(board).problem.unwrap_or_default();
        assert_eq!(problem(&board), "no incident was opened");
        told(&board, "incident_opened", Some("health"));
        assert_eq!(problem(&board), "recovery did not act");
        told(&board, "incident_joined", Some("recovery"));
        assert!(problem(&board).contains("still open"));
        told(&board, "incident_closed", None);
        assert_eq!(problem(&board), "the service does not answer again");
        answers(&board, STREAK);
        let row = judged(&board);
        assert!(row.is_well() && row.detected.is_some(), "{row:?}");
        assert!(board.look(|scene| is_settled(scene, 0, Layer::Recovery)));
        told(&board, "incident_opened", Some("recovery"));
        assert_eq!(problem(&board), "2 incidents were opened instead of one");
    }
}
