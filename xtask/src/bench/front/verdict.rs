//! What a load's outcomes say: who lost what, for how long nobody was answered, and what the service did unseen.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::bench::front::client::{End, Outcome};
use crate::bench::front::store::Titles;

/// Something that was done to the service: when, and when its process was seen to be gone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blow {
    pub(super) at: Instant,
    pub(super) gone: Instant,
    /// What comes later is another's.
    pub(super) until: Instant,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) requests: u64,
    /// GETs that did not get what they asked for.
    pub(super) safe_failed: u64,
    /// POSTs that failed and were under way when the process died.
    pub(super) unsafe_failed_in_flight: u64,
    /// POSTs that failed without that excuse.
    pub(super) unsafe_failed_otherwise: u64,
    /// POSTs that the service carried out more than once.
    pub(super) carried_out_twice: u64,
    /// POSTs that were answered well and are not there.
    pub(super) answered_and_lost: u64,
    /// POSTs that are there although their sender was told that they failed.
    pub(super) done_but_failed: u64,
    /// How often each failure was seen.
    pub(super) failures: BTreeMap<String, u64>,
}

pub(super) fn judge(outcomes: &[Outcome], blows: &[Blow], stored: &Titles) -> Verdict {
    let mut verdict = Verdict { requests: outcomes.len() as u64, ..Verdict::default() };
    for outcome in outcomes {
        let failure = match &outcome.end {
            End::Done => None,
            End::Refused(status, reason) => Some(format!("status {}, {reason}", status.as_u16())),
            End::Broken(what) => Some(what.clone()),
        };
        if let Some(title) = &outcome.title {
            let times = stored.get(title).copied().unwrap_or_default();
            verdict.carried_out_twice += u64::from(times > 1);
            verdict.answered_and_lost += u64::from(times == 0 && failure.is_none());
            verdict.done_but_failed += u64::from(times > 0 && failure.is_some());
        }
        let Some(failure) = failure else { continue };
        let method = if outcome.title.is_some() { "POST" } else { "GET" };
        *verdict.failures.entry(format!("{method}: {failure}")).or_default() += 1;
        match (&outcome.title, blows.iter().any(|blow| in_flight(outcome, blow))) {
            (None, _) => verdict.safe_failed += 1,
            (Some(_), true) => verdict.unsafe_failed_in_flight += 1,
            (Some(_), false) => verdict.unsafe_failed_otherwise += 1,
        }
    }
    verdict
}

/// Begun before the process was gone, and not over before it was struck. Between the two its sockets still took what
/// came.
fn in_flight(outcome: &Outcome, blow: &Blow) -> bool {
    outcome.begun <= blow.gone && outcome.ended >= blow.at
}

/// The longest time around each blow in which nobody got what he asked for, from one success to the next.
pub(super) fn gaps(outcomes: &[Outcome], blows: &[Blow]) -> Vec<Duration> {
    let mut successes: Vec<Instant> =
        outcomes.iter().filter(|outcome| outcome.end == End::Done).map(|outcome| outcome.ended).collect();
    successes.sort_unstable();
    blows.iter().map(|blow| gap(&successes, blow)).collect()
}

fn gap(successes: &[Instant], blow: &Blow) -> Duration {
    // From the last success before, so that a gap which began with the blow is seen whole.
    let first = successes.partition_point(|success| *success <= blow.at).saturating_sub(1);
    let after = successes[first..].iter().copied().take_while(|success| *success <= blow.until);
    let around: Vec<Instant> = after.chain([blow.until]).collect();
    around.windows(2).map(|pair| pair[1].saturating_duration_since(pair[0])).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(base: Instant, title: Option<&str>, millis: (u64, u64), end: End) -> Outcome {
        let at = |millis| base + Duration::from_millis(millis);
        Outcome {
            title: title.map(str::to_owned),
            intended: at(millis.0),
            begun: at(millis.0),
            ended: at(millis.1),
            end,
        }
    }

    fn blow(base: Instant, at: u64, gone: u64, until: u64) -> Blow {
        let [at, gone, until] = [at, gone, until].map(|millis| base + Duration::from_millis(millis));
        Blow { at, gone, until }
    }

    #[test]
    fn a_failure_is_excused_only_for_a_post_under_way_at_the_death() {
        let base = Instant::now();
        let refused = || End::Broken("reset".into());
        let outcomes = [
            outcome(base, Some("before"), (0, 90), refused()),
            outcome(base, Some("across"), (95, 105), refused()),
            outcome(base, Some("dying"), (102, 104), refused()),
            outcome(base, Some("after"), (104, 110), refused()),
            outcome(base, None, (95, 105), refused()),
        ];
        let verdict = judge(&outcomes, &[blow(base, 100, 103, 500)], &Titles::new());
        assert_eq!((verdict.unsafe_failed_in_flight, verdict.unsafe_failed_otherwise), (2, 2));
        assert_eq!((verdict.safe_failed, verdict.failures["POST: reset"]), (1, 4));
    }

    #[test]
    fn what_the_service_did_is_held_against_what_its_clients_were_told() {
        let base = Instant::now();
        let outcomes = [
            outcome(base, Some("once"), (0, 1), End::Done),
            outcome(base, Some("twice"), (0, 1), End::Done),
            outcome(base, Some("lost"), (0, 1), End::Done),
            outcome(base, Some("secret"), (0, 1), End::Broken("reset".into())),
        ];
        let stored =
            [("once", 1), ("twice", 2), ("secret", 1)].map(|(title, times)| (title.to_owned(), times));
        let verdict = judge(&outcomes, &[], &Titles::from(stored));
        assert_eq!(
            (verdict.carried_out_twice, verdict.answered_and_lost, verdict.done_but_failed),
            (1, 1, 1)
        );
    }

    #[test]
    fn a_gap_runs_from_the_last_success_before_to_the_first_after_and_never_ends_by_a_failure() {
        let base = Instant::now();
        let done = |ended| outcome(base, None, (0, ended), End::Done);
        let outcomes =
            [done(10), done(95), outcome(base, None, (0, 110), End::Broken(String::new())), done(350)];
        let millis = |blow| gaps(&outcomes, &[blow])[0].as_millis();
        assert_eq!(millis(blow(base, 100, 101, 400)), 255);
        assert_eq!(millis(blow(base, 100, 101, 300)), 205, "the next blow ends it");
        assert_eq!(millis(blow(base, 360, 361, 1000)), 650, "nobody came back");
    }
}
