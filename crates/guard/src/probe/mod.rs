//! Layer 6's questions, asked of a real instance. What an answer means is the head's business.

mod http;
mod tcp;

use std::io;
use std::time::Duration;

use plimsoll_core::ProbeOutcome;
use rustix::io::Errno;
use tokio::time::{Instant, timeout};

use crate::endpoint::Endpoint;

/// What one question came to, before time is taken into account.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Yes,
    No {
        why: String,
    },
    /// We are short of what it takes to ask.
    NotAsked {
        why: String,
    },
}

/// An outcome, and for a refusal the reason to show.
#[derive(Debug, PartialEq, Eq)]
pub struct Probed {
    pub outcome: ProbeOutcome,
    pub why: Option<String>,
}

/// Waits for an answer up to `patience`; one that comes after `limit` is late, which is a sign of life all the same.
pub async fn timed(question: impl Future<Output = Answer>, limit: Duration, patience: Duration) -> Probed {
    let asked = Instant::now();
    match timeout(patience, question).await {
        Err(_) => Probed {
            outcome: ProbeOutcome::Unanswered,
            why: Some(format!("no answer in {:.1} s", patience.as_secs_f64())),
        },
        Ok(Answer::No { why }) => Probed { outcome: ProbeOutcome::Refused, why: Some(why) },
        Ok(Answer::NotAsked { why }) => Probed { outcome: ProbeOutcome::NotAsked, why: Some(why) },
        Ok(Answer::Yes) => {
            let took = asked.elapsed();
            let outcome =
                if took <= limit { ProbeOutcome::Passed { took } } else { ProbeOutcome::Late { took } };
            Probed { outcome, why: None }
        }
    }
}

/// What a connection that did not come about says: something about the instance, unless it was for want of something of
/// ours.
fn unconnected(endpoint: &Endpoint, error: &io::Error) -> Answer {
    let why = format!("connect to {endpoint}: {error}");
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    let is_ours = Errno::from_io_error(error).is_some_and(|errno| ours.contains(&errno));
    if is_ours { Answer::NotAsked { why } } else { Answer::No { why } }
}

/// Is there anybody who takes a connection?
pub async fn tcp(endpoint: &Endpoint) -> Answer {
    tcp::ask(endpoint).await
}

/// `GET` of a path: 200 to 399 is a yes.
pub async fn http(endpoint: &Endpoint, path: &str) -> Answer {
    http::ask(endpoint, path).await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn after(span: Duration) -> Answer {
        tokio::time::sleep(span).await;
        Answer::Yes
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_late_after_the_timeout_and_missing_after_the_patience() {
        let (limit, patience) = (Duration::from_secs(1), Duration::from_secs(3));
        let quick = timed(after(Duration::from_millis(5)), limit, patience).await;
        assert!(matches!(quick.outcome, ProbeOutcome::Passed { .. }));
        let late = timed(after(Duration::from_secs(2)), limit, patience).await;
        assert_eq!(late.outcome, ProbeOutcome::Late { took: Duration::from_secs(2) });
        let never = timed(after(Duration::from_secs(4)), limit, patience).await;
        assert_eq!(never.outcome, ProbeOutcome::Unanswered);
    }
}
