//! The head's records, put into words and into the contract's event records.

use std::time::Duration;

use jiff::Timestamp;
use plimsoll_core::{Axis, Cause, Exit, Kind, Order, Record, Severity, SpawnFailure};
use plimsoll_kernel as kernel;
use serde_json::{Map, Value, json};

use crate::records::EventRecord;

/// The contract's record for what the head told. `why` is what the driver knows beyond it, such as an error's text.
pub fn event(record: &Record, service: &str, time: Timestamp, why: Option<&str>) -> EventRecord {
    let mut detail = numbers(&record.kind);
    if let Some(cause) = record.cause {
        detail.extend(cause_numbers(cause));
    }
    let message = match (sentence(record), why) {
        (sentence, Some(why)) => format!("{sentence}: {why}"),
        (sentence, None) => sentence,
    };
    detail.insert("message".into(), Value::from(message));
    detail.insert("severity".into(), Value::from(severity_name(record.kind.severity())));
    EventRecord {
        time,
        service: service.to_owned(),
        instance: record.instance.map(|number| format!("{service}.{number}")),
        kind: record.kind.name().to_owned(),
        layer: record.cause.and_then(Cause::layer).map(|layer| layer.name().to_owned()),
        cause: record.cause.map(|cause| cause.name().to_owned()),
        detail,
    }
}

/// One line for a person: time, who, what.
pub fn line(event: &EventRecord) -> String {
    let who = event.instance.as_deref().unwrap_or(&event.service);
    let message = event.detail.get("message").and_then(Value::as_str).unwrap_or(&event.kind);
    let mark = match event.detail.get("severity").and_then(Value::as_str) {
        Some("page") => "!! ",
        Some("warning") => "!  ",
        Some(_) | None => "   ",
    };
    format!("{} {mark}{who}: {message}", clock(event.time))
}

/// `20:00:01.123`, in UTC like every time that Plimsoll shows.
pub fn clock(time: Timestamp) -> String {
    time.strftime("%H:%M:%S%.3f").to_string()
}

pub const fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Page => "page",
    }
}

/// `exit code 1`, `signal 9 (SIGKILL)`.
pub fn exit_words(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => kernel::Exit::Code(code).to_string(),
        Exit::Signal(number) => kernel::Exit::Signal { number, core_dumped: false }.to_string(),
        Exit::Unknown => "an end nobody saw".to_owned(),
    }
}

/// `1.2 s`, `340 ms`, `2 min`.
pub fn span_words(span: Duration) -> String {
    match span {
        span if span >= Duration::from_mins(2) => format!("{} min", span.as_secs() / 60),
        span if span >= Duration::from_secs(1) => format!("{:.1} s", span.as_secs_f64()),
        span => format!("{} ms", span.as_millis()),
    }
}

/// Why, as it follows "recycling: " or "incident 3: ".
pub fn cause_words(cause: Cause) -> String {
    match cause {
        Cause::Memory { axis, working_set, slope } => {
            let rate = rate_words(slope.0);
            match axis {
                Axis::Persistence => format!("memory stayed over the line, now {working_set}"),
                Axis::Slope => format!("memory {working_set} over the line and growing {rate}"),
                Axis::Level => format!("memory {working_set} is close to the wall"),
            }
        }
        Cause::OutOfMemory { exit } => {
            format!("the kernel killed it at the memory wall ({})", exit_words(exit))
        }
        Cause::Descriptors { count, limit } => format!("{count} of {limit} descriptors open"),
        Cause::Died { exit } => format!("it ended by itself with {}", exit_words(exit)),
        Cause::Daemonized => {
            "its main process ended and left children behind: run it in the foreground".to_owned()
        }
        Cause::Unhealthy { failures } => format!("{failures} health checks in a row failed"),
        Cause::Hung => "requests wait and nothing moves".to_owned(),
        Cause::StartTimedOut => "not ready within start_period".to_owned(),
        Cause::SpawnFailed => "it could not be started".to_owned(),
        Cause::Ordered => "asked for".to_owned(),
    }
}

fn rate_words(bytes_per_second: i64) -> String {
    format!("{} a second", plimsoll_core::units::Bytes(bytes_per_second.max(0).unsigned_abs()))
}

fn sentence(record: &Record) -> String {
    let why = || record.cause.map(cause_words).unwrap_or_default();
    match &record.kind {
        Kind::Ordered { order } => format!("asked to {}", order_word(*order)),
        Kind::Configured => "new settings apply".to_owned(),
        Kind::Starting => "starting".to_owned(),
        Kind::Started => "its process runs".to_owned(),
        Kind::SpawnFailed { failure } => failure_words(*failure).to_owned(),
        Kind::Ready { again: true, .. } => "ready again".to_owned(),
        Kind::Ready { after, .. } if after.is_zero() => "ready, since nothing is asked of it".to_owned(),
        Kind::Ready { after, .. } => format!("ready after {}", span_words(*after)),
        Kind::Unready => "not ready: health checks fail".to_owned(),
        Kind::Recycling => format!("being replaced: {}", why()),
        Kind::Draining => "draining: requests in flight may finish".to_owned(),
        Kind::Stopping => "stop signal sent".to_owned(),
        Kind::Killing => "killing every process of it".to_owned(),
        Kind::KillLate { after } => {
            format!("still there {} after it was killed: stuck in the kernel", span_words(*after))
        }
        Kind::Exited { exit, planned: true } => format!("ended as planned, {}", exit_words(*exit)),
        Kind::Exited { exit, planned: false } => format!("ended by itself, {}", exit_words(*exit)),
        Kind::OomKill => "the kernel killed in it for want of memory".to_owned(),
        Kind::Recycled => "gone, replaced as planned".to_owned(),
        Kind::BackingOff { attempt, delay } => {
            format!("failed {attempt} times in a row, next start in {}", span_words(*delay))
        }
        Kind::CrashLoop { attempt } => {
            format!("crash loop: {attempt} failures in a row; it is tried again for ever, but look at it")
        }
        Kind::HandoverFailed { attempt } => {
            format!("the successor failed ({attempt} in a row), the old instance stays: {}", why())
        }
        Kind::Stopped => "stopped".to_owned(),
        Kind::OverLine { working_set, line } => format!("memory {working_set} is over the line {line}"),
        Kind::UnderLine { working_set, line } => {
            format!("memory {working_set} is under the line {line} again")
        }
        Kind::TripWire => "the kernel's trip-wire at the line fired".to_owned(),
        Kind::LineRefused { baseline, line } => format!(
            "line refused: it needs {baseline} just to run and the line is {line}; raise memory.recycle (only the wall is guarded until then)"
        ),
        Kind::BudgetSpent { recycles_per_hour } => format!(
            "recycle budget of {recycles_per_hour} an hour is spent; from now on only what would reach the wall is recycled"
        ),
        Kind::SampleFailed { failures } => format!("could not be measured ({failures} times in a row)"),
        Kind::SampledAgain => "can be measured again".to_owned(),
        Kind::ProbeFailed { failures } => format!("health check failed ({failures} in a row)"),
        Kind::ProbeLate { took } => {
            format!("health check answered late, after {}: busy, not hung", span_words(*took))
        }
        Kind::IncidentOpened { incident } => format!("incident {} opened: {}", incident.0, why()),
        Kind::IncidentJoined { incident } => {
            format!("incident {} has a further cause: {}", incident.0, why())
        }
        Kind::IncidentClosed { incident, dark, .. } if dark.is_zero() => {
            format!("incident {} closed, never dark", incident.0)
        }
        Kind::IncidentClosed { incident, dark, .. } => {
            format!("incident {} closed, {} dark", incident.0, span_words(*dark))
        }
        Kind::Anomaly { what } => format!("unexpected, and survived: {what}"),
    }
}

const fn order_word(order: Order) -> &'static str {
    match order {
        Order::Start => "start",
        Order::Stop => "stop",
        Order::Restart => "restart",
        Order::Recycle => "recycle",
    }
}

const fn failure_words(failure: SpawnFailure) -> &'static str {
    match failure {
        SpawnFailure::Exhausted => "could not be started, the host is short of something",
        SpawnFailure::AddressTaken => "could not be started, its address is taken",
        SpawnFailure::Refused => "could not be started",
    }
}

/// The figures of a record, for machines.
fn numbers(kind: &Kind) -> Map<String, Value> {
    let value = match kind {
        Kind::Ordered { order } => json!({ "order": order_word(*order) }),
        Kind::Ready { after, .. } | Kind::KillLate { after } => json!({ "after_ms": millis(*after) }),
        Kind::Exited { exit, planned } => {
            let mut value = exit_value(*exit);
            value.insert("planned".into(), Value::from(*planned));
            return value;
        }
        Kind::BackingOff { attempt, delay } => json!({ "attempt": attempt, "delay_ms": millis(*delay) }),
        Kind::CrashLoop { attempt } | Kind::HandoverFailed { attempt } => json!({ "attempt": attempt }),
        Kind::OverLine { working_set, line } | Kind::UnderLine { working_set, line } => {
            json!({ "memory_bytes": working_set.0, "line_bytes": line.0 })
        }
        Kind::LineRefused { baseline, line } => {
            json!({ "baseline_bytes": baseline.0, "line_bytes": line.0 })
        }
        Kind::BudgetSpent { recycles_per_hour } => json!({ "recycles_per_hour": recycles_per_hour }),
        Kind::SampleFailed { failures } | Kind::ProbeFailed { failures } => json!({ "failures": failures }),
        Kind::ProbeLate { took } => json!({ "took_ms": millis(*took) }),
        Kind::IncidentOpened { incident } | Kind::IncidentJoined { incident } => {
            json!({ "incident": incident.0 })
        }
        Kind::IncidentClosed { incident, dark, lasted } => {
            json!({ "incident": incident.0, "dark_ms": millis(*dark), "lasted_ms": millis(*lasted) })
        }
        Kind::Configured
        | Kind::Starting
        | Kind::Started
        | Kind::SpawnFailed { .. }
        | Kind::Unready
        | Kind::Recycling
        | Kind::Draining
        | Kind::Stopping
        | Kind::Killing
        | Kind::OomKill
        | Kind::Recycled
        | Kind::Stopped
        | Kind::TripWire
        | Kind::SampledAgain
        | Kind::Anomaly { .. } => return Map::new(),
    };
    object(value)
}

/// The figures of a cause, for machines.
pub fn cause_numbers(cause: Cause) -> Map<String, Value> {
    match cause {
        Cause::Memory { axis, working_set, slope } => object(json!({
            "axis": axis.name(),
            "memory_bytes": working_set.0,
            "slope_bytes_per_second": slope.0,
        })),
        Cause::OutOfMemory { exit } | Cause::Died { exit } => exit_value(exit),
        Cause::Descriptors { count, limit } => {
            object(json!({ "descriptors": count, "descriptor_limit": limit }))
        }
        Cause::Unhealthy { failures } => object(json!({ "failures": failures })),
        Cause::Daemonized | Cause::Hung | Cause::StartTimedOut | Cause::SpawnFailed | Cause::Ordered => {
            Map::new()
        }
    }
}

fn exit_value(exit: Exit) -> Map<String, Value> {
    object(match exit {
        Exit::Code(code) => json!({ "exit_code": code }),
        Exit::Signal(signal) => json!({ "signal": signal }),
        Exit::Unknown => json!({}),
    })
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_core::ServiceId;
    use plimsoll_core::units::{Bytes, BytesPerSecond};

    #[test]
    fn a_recycle_reads_as_a_sentence_and_as_the_contracts_record() {
        let cause = Cause::Memory {
            axis: Axis::Slope,
            working_set: Bytes::mib(312),
            slope: BytesPerSecond(31 * 1024 * 1024),
        };
        let record =
            Record { service: ServiceId(0), instance: Some(7), cause: Some(cause), kind: Kind::Recycling };
        let event = event(&record, "reports", "2026-11-23T20:00:01.123Z".parse().unwrap(), None);
        assert_eq!(event.layer.as_deref(), Some("kill_switch"));
        assert_eq!(event.cause.as_deref(), Some("memory"));
        assert_eq!(event.detail["slope_bytes_per_second"], 31 * 1024 * 1024);
        assert_eq!(
            line(&event),
            "20:00:01.123 !  reports.7: being replaced: memory 312 MiB over the line and growing 31 MiB a second"
        );
    }

    #[test]
    fn an_exit_is_named_by_code_or_signal() {
        assert_eq!(exit_words(Exit::Code(3)), "exit code 3");
        assert_eq!(exit_words(Exit::Signal(9)), "signal 9 (SIGKILL)");
        assert_eq!(exit_words(Exit::Signal(40)), "signal 40");
    }
}
