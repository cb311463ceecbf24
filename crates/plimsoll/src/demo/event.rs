//! One line of `plimsoll run --log json`, read as any other tool would read it.

use serde_json::Value;

/// Kinds that tell the show's audience nothing: steps between two others, or said better by the incident's own.
const QUIET: [&str; 11] = [
    "configured",
    "draining",
    "ordered",
    "probe_late",
    "recycled",
    "recycling",
    "reloaded",
    "started",
    "starting",
    "stopping",
    "trip_wire",
];

/// What the guard said happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) kind: String,
    /// The instance, or the service where it is about none.
    pub(super) who: String,
    pub(super) layer: Option<String>,
    pub(super) message: String,
    pub(super) severity: String,
    pub(super) incident: Option<u64>,
    /// How long nobody could serve, as the guard knows it.
    pub(super) dark_ms: Option<u64>,
}

impl Event {
    /// `None` for a line that is no event.
    pub(super) fn read(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let detail = &value["detail"];
        let kind = text(&value["kind"])?;
        Some(Self {
            who: text(&value["instance"]).or_else(|| text(&value["service"]))?,
            layer: text(&value["layer"]),
            message: text(&detail["message"]).unwrap_or_else(|| kind.clone()),
            severity: text(&detail["severity"]).unwrap_or_default(),
            incident: detail["incident"].as_u64(),
            dark_ms: detail["dark_ms"].as_u64(),
            kind,
        })
    }

    pub(super) fn is_quiet(&self) -> bool {
        QUIET.contains(&self.kind.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_the_contract_is_read_whatever_else_it_says() {
        let line = r#"{"time":"2026-11-23T20:00:00.000Z","service":"reports","instance":"reports.7","kind":"incident_opened",
            "layer":"kill_switch","cause":"memory","new":1,"detail":{"incident":3,"message":"incident 3 opened","severity":"warning"}}"#;
        let event = Event::read(line).expect("an event");
        assert_eq!((event.who.as_str(), event.incident), ("reports.7", Some(3)));
        assert_eq!(event.layer.as_deref(), Some("kill_switch"));
        assert!(!event.is_quiet());
    }

    #[test]
    fn a_line_that_is_no_event_is_passed_over() {
        for line in ["", "plimsoll 0.1.0", "[]", "{}", r#"{"kind":"ready"}"#] {
            assert_eq!(Event::read(line), None, "{line}");
        }
    }
}
