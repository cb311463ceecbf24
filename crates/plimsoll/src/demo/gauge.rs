//! Looks at the service: the guard's status over its control socket, and the descriptors that the kernel shows.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::board::{Board, Enforced, Reading, Service};
use super::http::{self, Connection, HttpError};
use super::stage::SERVICE;

/// How exactly the moment is known at which a line is passed.
pub(super) const INTERVAL: Duration = Duration::from_millis(25);
/// An answer that takes longer is given up, and asked for again.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reads for as long as it is polled. What cannot be read is left out, and tried again at the next tick.
pub(super) async fn read(board: Rc<Board>, socket: PathBuf) {
    let mut connection = None;
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let at = Instant::now();
        match timeout(PATIENCE, status(&mut connection, &socket)).await {
            Ok(Ok(Some(status))) => put(&board, at, &status),
            Ok(Ok(None)) => {}
            Ok(Err(_)) | Err(_) => connection = None,
        }
    }
}

async fn status(connection: &mut Option<Connection>, socket: &Path) -> Result<Option<Value>, HttpError> {
    let open = match connection.take() {
        Some(open) => open,
        None => http::over_unix(socket).await?,
    };
    let open = connection.insert(open);
    let request = http::request(Method::GET, "/api/v1/status", String::new(), true);
    let (head, body) = http::exchange(open, request).await?;
    Ok(if head.status.is_success() { serde_json::from_slice(&body).ok() } else { None })
}

fn put(board: &Board, at: Instant, status: &Value) {
    let services = status["services"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(seen) = services.iter().find(|service| service["name"] == SERVICE) else { return };
    // With the handover `hold` there is never more than one.
    let instance = &seen["instances"][0];
    let pid = instance["pid"].as_u64();
    let reading = Reading {
        at,
        memory_bytes: instance["memory_bytes"].as_u64(),
        descriptors: pid.and_then(descriptors).or_else(|| instance["descriptors"].as_u64()),
    };
    let service = Service {
        state: seen["state"].as_str().unwrap_or_default().to_owned(),
        instance: instance["id"].as_str().map(str::to_owned),
        pid,
        enforced: enforced(&seen["layers"]),
    };
    board.write(|scene| {
        scene.read(reading);
        scene.service = service;
    });
}

fn descriptors(pid: u64) -> Option<u64> {
    fs::read_dir(format!("/proc/{pid}/fd")).ok().map(|entries| entries.count() as u64)
}

fn enforced(layers: &Value) -> Vec<Enforced> {
    let rows = layers.as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    rows.iter().map(|row| Enforced { layer: text(&row["layer"]), by: text(&row["enforced_by"]) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_of_the_contract_becomes_a_reading() {
        let board = Board::new();
        let status = json!({"services": [{"name": "reports", "state": "ready",
            "instances": [{"id": "reports.7", "memory_bytes": 12, "descriptors": 34}],
            "layers": [{"layer": "hard_wall", "enforced_by": "cgroup-v2", "limit_bytes": 1}]}]});
        put(&board, Instant::now(), &status);
        board.look(|scene| {
            let reading = scene.readings.back().expect("a reading");
            assert_eq!((reading.memory_bytes, reading.descriptors), (Some(12), Some(34)));
            assert_eq!(scene.service.instance.as_deref(), Some("reports.7"));
            assert_eq!(scene.service.enforced_by("hard_wall"), Some("cgroup-v2"));
        });
    }

    #[test]
    fn a_service_without_an_instance_has_no_memory_rather_than_none_used() {
        let board = Board::new();
        let down = json!({"services": [{"name": "reports", "state": "backing off", "instances": []}]});
        put(&board, Instant::now(), &down);
        board.look(|scene| assert_eq!(scene.readings.back().and_then(|it| it.memory_bytes), None));
    }
}
