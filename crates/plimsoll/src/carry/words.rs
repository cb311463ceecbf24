//! What the front has to say, in the guard's words.

use plimsoll_core::ServiceId;
use plimsoll_core::gate::{GateRecord, Why};
use plimsoll_front::{FrontRecord, LostRequest, Reports, span};
use plimsoll_guard::records::RequestRecord;
use plimsoll_guard::traffic::{Happened, Said, TrafficNews};

pub(super) fn news(reports: Reports) -> TrafficNews {
    let happened = reports.records.iter().filter_map(happened).collect();
    let mut said = in_words(reports.records);
    if reports.missed > 0 {
        let message = format!("{} records of the front came too fast to be kept", reports.missed);
        said.push(Said { service: None, instance: None, kind: "front_missed", severity: "warning", message });
    }
    TrafficNews {
        happened,
        in_flight: reports.in_flight.into_iter().collect(),
        stalled: reports.stalled.into_iter().collect(),
        said,
    }
}

fn happened(record: &FrontRecord) -> Option<(ServiceId, Happened)> {
    match record {
        FrontRecord::Gate { service, what: GateRecord::HoldEnded { requests, refused, longest } } => {
            Some((*service, Happened::Held { requests: *requests, refused: *refused, longest: *longest }))
        }
        FrontRecord::Gate { what: GateRecord::HoldBegan | GateRecord::Ejected { .. }, .. }
        | FrontRecord::Said { .. } => None,
        FrontRecord::Replayed(it) => Some((it.service, Happened::Replayed)),
        FrontRecord::Lost(lost) => {
            let request = RequestRecord {
                time: jiff::Timestamp::now(),
                instance: lost.instance.clone(),
                method: lost.method.clone(),
                path: lost.path.clone(),
                request_id: lost.request_id.clone(),
                reason: lost.why.name().to_owned(),
            };
            Some((lost.service, Happened::Unknown(request)))
        }
    }
}

/// One line for each thing, and one for all of many: a death under traffic would be a screen full of the same.
fn in_words(records: impl IntoIterator<Item = FrontRecord>) -> Vec<Said> {
    let mut all: Vec<Said> = Vec::new();
    let mut more: Vec<(usize, u64)> = Vec::new();
    for record in records {
        let said = in_words_alone(record);
        let alike = |it: &(usize, u64)| {
            let other = &all[it.0];
            (other.kind, other.service, &other.instance) == (said.kind, said.service, &said.instance)
        };
        if let Some((_, count)) = more.iter_mut().find(|it| alike(it)) {
            *count += 1;
            continue;
        }
        if matches!(said.kind, "replayed" | "outcome_unknown") {
            more.push((all.len(), 0));
        }
        all.push(said);
    }
    for (index, count) in more.into_iter().filter(|(_, count)| *count > 0) {
        let first = &mut all[index];
        first.message = match first.kind {
            "replayed" => format!("{}, and {count} more", first.message),
            _ => format!("{}, and {count} more (`plimsoll incidents show` lists them)", first.message),
        };
    }
    all
}

fn in_words_alone(record: FrontRecord) -> Said {
    match record {
        FrontRecord::Gate { service, what } => held(service, what),
        FrontRecord::Lost(lost) => lost_in_words(lost),
        FrontRecord::Replayed(it) => Said {
            service: Some(it.service),
            instance: Some(it.instance),
            kind: "replayed",
            severity: "info",
            message: format!("{} {} (request {}) is sent again", it.method, it.path, it.request_id),
        },
        FrontRecord::Said { kind, worth, message } => {
            Said { service: None, instance: None, kind, severity: worth, message }
        }
    }
}

fn held(service: ServiceId, what: GateRecord) -> Said {
    let (kind, severity, message) = match what {
        GateRecord::HoldBegan => ("hold_began", "info", "requests are held".to_owned()),
        GateRecord::HoldEnded { requests, refused: 0, longest } => {
            ("hold_ended", "info", format!("{requests} requests were held, {} at the longest", span(longest)))
        }
        GateRecord::HoldEnded { requests, refused, longest } => {
            let longest = span(longest);
            let message =
                format!("{requests} requests were held, {longest} at the longest; {refused} were refused");
            ("hold_ended", "warning", message)
        }
        GateRecord::Ejected { instance, pause } => {
            let message =
                format!("instance {} fails and gets no requests for {}", instance.number, span(pause));
            ("ejected", "warning", message)
        }
    };
    Said { service: Some(service), instance: None, kind, severity, message }
}

fn lost_in_words(lost: LostRequest) -> Said {
    let LostRequest { service, instance, method, path, request_id, why } = lost;
    let (kind, what) = match why {
        Why::Poison => ("poison", "was in flight at two deaths and is not sent again"),
        Why::MayHaveRun => ("outcome_unknown", "may have run"),
        Why::Answered | Why::BodyGone | Why::Budget | Why::Gone => ("outcome_unknown", "is not sent again"),
    };
    let message = format!("{method} {path} (request {request_id}) {what}");
    Said { service: Some(service), instance: Some(instance), kind, severity: "warning", message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replayed(path: &str) -> FrontRecord {
        FrontRecord::Replayed(plimsoll_front::ReplayedRequest {
            service: ServiceId(0),
            instance: "reports.1".to_owned(),
            method: "GET".to_owned(),
            path: path.to_owned(),
            request_id: "a".to_owned(),
        })
    }

    fn lost(path: &str, why: Why) -> FrontRecord {
        FrontRecord::Lost(LostRequest {
            service: ServiceId(0),
            instance: "reports.1".to_owned(),
            method: "POST".to_owned(),
            path: path.to_owned(),
            request_id: "b".to_owned(),
            why,
        })
    }

    #[test]
    fn a_death_under_traffic_is_a_few_lines() {
        let mut records = vec![lost("/p", Why::Poison)];
        for number in 0..50 {
            records.push(replayed(&format!("/{number}")));
            records.push(lost(&format!("/{number}"), Why::MayHaveRun));
        }
        let said: Vec<String> = in_words(records).into_iter().map(|it| it.message).collect();
        assert_eq!(
            said,
            [
                "POST /p (request b) was in flight at two deaths and is not sent again",
                "GET /0 (request a) is sent again, and 49 more",
                "POST /0 (request b) may have run, and 49 more (`plimsoll incidents show` lists them)",
            ]
        );
        assert_eq!(in_words(vec![replayed("/x")])[0].message, "GET /x (request a) is sent again");
    }
}
