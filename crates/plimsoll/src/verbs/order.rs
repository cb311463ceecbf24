//! `recycle`, `restart`, `stop`, `start`: give the order, then wait until it is carried out and say so.

use std::io::Write;
use std::time::{Duration, Instant};

use plimsoll_guard::control::client::Client;
use plimsoll_guard::records::{ServiceStatus, Status};
use plimsoll_guard::tell::span_words;

use super::reach::{self, ReachError};
use crate::cli::{Exit, Global, OneService};

/// Beyond this the order still stands, but nobody is kept waiting at a prompt.
const WAIT: Duration = Duration::from_mins(2);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Ends without ever having been ready.
const ENDS_MAX: u64 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Recycle,
    Restart,
    Stop,
    Start,
}

impl Order {
    const fn verb(self) -> &'static str {
        match self {
            Self::Recycle => "recycle",
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Start => "start",
        }
    }

    /// Whether `now` is what was asked for, of a service that looked like `before`.
    fn is_done(self, before: &ServiceStatus, now: &ServiceStatus) -> bool {
        let serving = |service: &ServiceStatus| -> Vec<String> {
            let leads = service.instances.iter().filter(|it| it.role == "lead" && it.state == "ready");
            leads.map(|it| it.id.clone()).collect()
        };
        // One ready replica makes the service ready; the order is about all of them.
        let stands = now.state == "ready"
            && now.instances.iter().filter(|it| it.role == "lead").all(|it| it.state == "ready");
        match self {
            Self::Stop => now.state == "down",
            Self::Start => stands,
            Self::Recycle | Self::Restart => {
                let (old, new) = (serving(before), serving(now));
                let replaced = new.iter().all(|id| !old.contains(id));
                let parting = now
                    .instances
                    .iter()
                    .any(|it| before.instances.iter().any(|old| old.id == it.id && old.role == "lead"));
                stands && replaced && !parting
            }
        }
    }
}

pub fn run(
    order: Order,
    args: &OneService,
    global: &Global,
    out: &mut dyn Write,
) -> Result<Exit, ReachError> {
    run_while(order, args, global, out, |_, _| true)
}

/// Starts it, for somebody who has something to take back: what ends again and again is not waited for.
pub(super) fn start_or_give_up(
    args: &OneService,
    global: &Global,
    out: &mut dyn Write,
) -> Result<Exit, ReachError> {
    let is_hopeful = |before: &ServiceStatus, now: &ServiceStatus| now.restarts < before.restarts + ENDS_MAX;
    run_while(Order::Start, args, global, out, is_hopeful)
}

fn run_while(
    order: Order,
    args: &OneService,
    global: &Global,
    out: &mut dyn Write,
    is_hopeful: impl Fn(&ServiceStatus, &ServiceStatus) -> bool,
) -> Result<Exit, ReachError> {
    let client = reach::client(global);
    let begun = Instant::now();
    let after = reach::wait(carry_out(&client, order, &args.service, is_hopeful))?;
    if args.json {
        serde_json::to_writer(&mut *out, &after).map_err(std::io::Error::from)?;
        writeln!(out)?;
        return Ok(Exit::Done);
    }
    let instances: Vec<&str> = after.instances.iter().map(|it| it.id.as_str()).collect();
    let now = if instances.is_empty() { String::new() } else { format!(": {}", instances.join(", ")) };
    writeln!(out, "{} is {}{now} (took {})", after.name, after.state, span_words(begun.elapsed()))?;
    Ok(Exit::Done)
}

async fn carry_out(
    client: &Client,
    order: Order,
    service: &str,
    is_hopeful: impl Fn(&ServiceStatus, &ServiceStatus) -> bool,
) -> Result<ServiceStatus, ReachError> {
    let before = find(client, service).await?;
    let _: serde_json::Value = client.post(&format!("/api/v1/services/{service}/{}", order.verb())).await?;
    let until = Instant::now() + WAIT;
    loop {
        let now = find(client, service).await?;
        if order.is_done(&before, &now) {
            return Ok(now);
        }
        if !is_hopeful(&before, &now) {
            let ends = now.restarts - before.restarts;
            return Err(ReachError::No(format!("{service} ended {ends} times in a row")));
        }
        if Instant::now() >= until {
            let why =
                format!("{service} is still {} after {}; the order stands", now.state, span_words(WAIT));
            return Err(ReachError::No(why));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn find(client: &Client, service: &str) -> Result<ServiceStatus, ReachError> {
    let status: Status = client.get("/api/v1/status").await?;
    let unknown = reach::unknown(&status, service);
    status.services.into_iter().find(|it| it.name == service).ok_or(unknown)
}
