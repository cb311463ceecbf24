//! The control API's routes: what each takes and answers.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode, header};
use plimsoll_core::Order;
use serde::Serialize;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::{Ask, Asker, OrderError};
use crate::beside;
use crate::ledger::LedgerHandle;
use crate::records::EventRecord;

/// Rows given when the caller names no limit, and the most that may be named.
const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 10_000;
/// Events waiting for one slow follower; past that it is told how many it missed.
const FOLLOW_BUFFER: usize = 256;

type Answer = Response<Either<Full<Bytes>, Lines>>;

pub(super) async fn answer(
    request: Request<Incoming>,
    asker: Asker,
    ledger: LedgerHandle,
) -> Result<Answer, Infallible> {
    let path = request.uri().path().to_owned();
    let query = Query::parse(request.uri().query().unwrap_or(""));
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let answer = match (request.method(), parts.as_slice()) {
        (&Method::GET, ["healthz"]) => text(StatusCode::OK, "ok\n"),
        (&Method::GET, ["api", "v1", "status"]) => status(&asker).await,
        (&Method::GET, ["api", "v1", "events"]) if query.flag("follow") => follow(&ledger, &query),
        (&Method::GET, ["api", "v1", "events"]) => {
            read(move || {
                let since = query.get("since").and_then(|text| text.parse().ok());
                json_of(&ledger.events(query.get("service"), since, query.limit()))
            })
            .await
        }
        (&Method::GET, ["api", "v1", "incidents"]) => {
            read(move || json_of(&ledger.incidents(query.get("service"), query.limit()))).await
        }
        (&Method::GET, ["api", "v1", "incidents", number]) => {
            let number = (*number).to_owned();
            read(move || incident(&ledger, &number)).await
        }
        (&Method::POST, ["api", "v1", "services", name, verb]) => order(&asker, name, verb).await,
        (&Method::POST, ["api", "v1", "reload"]) => reload(&asker).await,
        (&Method::POST, ["api", "v1", "upgrade"]) => upgrade(&asker, &query).await,
        _ => error(StatusCode::NOT_FOUND, &format!("no such route: {} {path}", request.method())),
    };
    Ok(answer)
}

async fn status(asker: &Asker) -> Answer {
    match ask(asker, Ask::Status).await {
        Some(status) => json_of(&status),
        None => gone(),
    }
}

async fn order(asker: &Asker, name: &str, verb: &str) -> Answer {
    let order = match verb {
        "start" => Order::Start,
        "stop" => Order::Stop,
        "restart" => Order::Restart,
        "recycle" => Order::Recycle,
        _ => return error(StatusCode::NOT_FOUND, &format!("no such order: {verb}")),
    };
    let service = name.to_owned();
    match ask(asker, |reply| Ask::Order { service, order, reply }).await {
        Some(Ok(())) => json_of(&json!({ "service": name, "order": verb })),
        Some(Err(problem @ OrderError::UnknownService(_))) => {
            error(StatusCode::NOT_FOUND, &problem.to_string())
        }
        Some(Err(problem @ OrderError::ShuttingDown)) => error(StatusCode::CONFLICT, &problem.to_string()),
        None => gone(),
    }
}

async fn reload(asker: &Asker) -> Answer {
    match ask(asker, Ask::Reload).await {
        Some(Ok(done)) => json_of(&json!({ "reloaded": done })),
        Some(Err(problem)) => error(StatusCode::UNPROCESSABLE_ENTITY, &problem),
        None => gone(),
    }
}

async fn upgrade(asker: &Asker, query: &Query) -> Answer {
    let Some(path) = query.get("binary").and_then(unescaped) else {
        return error(StatusCode::BAD_REQUEST, "name the binary");
    };
    match ask(asker, |reply| Ask::Upgrade { path, reply }).await {
        Some(Ok(done)) => json_of(&json!({ "upgrade": done })),
        Some(Err(problem)) => error(StatusCode::UNPROCESSABLE_ENTITY, &problem),
        None => gone(),
    }
}

fn incident(ledger: &LedgerHandle, number: &str) -> Answer {
    let found = number.parse().ok().and_then(|id| ledger.find_incident(id));
    match found {
        Some(incident) => json_of(&incident),
        None => error(StatusCode::NOT_FOUND, &format!("no incident {number}")),
    }
}

/// Asks the ledger beside the thread that guards: its answer may take a moment.
async fn read(question: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    let Ok(asked) = beside::start(question) else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "the host has no thread to read the ledger with");
    };
    match asked.await {
        Ok(Some(answer)) => answer,
        Ok(None) => error(StatusCode::INTERNAL_SERVER_ERROR, "the ledger was not asked"),
        Err(problem) => error(StatusCode::INTERNAL_SERVER_ERROR, &problem.to_string()),
    }
}

/// Puts a question to the driver; `None` when the driver has ended.
async fn ask<T>(asker: &Asker, question: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    asker.send(question(reply)).await.ok()?;
    answer.await.ok()
}

fn json_of(value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(bytes) => with_type(StatusCode::OK, "application/json", bytes),
        Err(problem) => error(StatusCode::INTERNAL_SERVER_ERROR, &problem.to_string()),
    }
}

fn error(status: StatusCode, message: &str) -> Answer {
    with_type(status, "application/json", json!({ "error": message }).to_string().into_bytes())
}

fn gone() -> Answer {
    error(StatusCode::SERVICE_UNAVAILABLE, "the guard is shutting down")
}

fn text(status: StatusCode, body: &str) -> Answer {
    with_type(status, "text/plain", body.as_bytes().to_vec())
}

fn with_type(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(Bytes::from(body))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    answer
}

/// One JSON event per line, for as long as the caller listens.
fn follow(ledger: &LedgerHandle, query: &Query) -> Answer {
    let mut events = ledger.subscribe();
    let service = query.get("service").map(str::to_owned);
    let (sender, receiver) = mpsc::channel(FOLLOW_BUFFER);
    tokio::task::spawn_local(async move {
        loop {
            let line = match events.recv().await {
                Ok(event) if service.as_ref().is_some_and(|name| *name != event.service) => continue,
                Ok(event) => line_of(&event),
                Err(tokio::sync::broadcast::error::RecvError::Lagged(missed)) => {
                    Bytes::from(format!("{{\"missed\":{missed}}}\n"))
                }
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            };
            if sender.send(line).await.is_err() {
                return;
            }
        }
    });
    let mut answer = Response::new(Either::Right(Lines(receiver)));
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/x-ndjson"));
    answer
}

fn line_of(event: &EventRecord) -> Bytes {
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    Bytes::from(line)
}

/// A body that goes on until its sender ends.
#[derive(Debug)]
pub(super) struct Lines(mpsc::Receiver<Bytes>);

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

/// `a=b&c`, percent-decoding left out: names and times need none.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "1"))).map(own).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value != "0")
    }

    fn limit(&self) -> usize {
        self.get("limit").and_then(|text| text.parse().ok()).unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX)
    }
}

fn own((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// A path with `%2F` and the like in it.
fn unescaped(text: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first == b'%' {
            let digits = rest.get(..2).and_then(|it| std::str::from_utf8(it).ok())?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = rest.get(2..)?;
        } else {
            bytes.push(*first);
        }
    }
    Some(OsString::from_vec(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_gives_its_values_flags_and_a_bounded_limit() {
        let query = Query::parse("service=reports&follow&limit=99999999");
        assert_eq!(query.get("service"), Some("reports"));
        assert!(query.flag("follow"));
        assert!(!query.flag("other"));
        assert_eq!(query.limit(), LIMIT_MAX);
        assert_eq!(Query::parse("").limit(), LIMIT_DEFAULT);
    }

    #[test]
    fn a_path_comes_through_whatever_is_in_it() {
        assert_eq!(unescaped("/opt/my%20new/plimsoll"), Some(PathBuf::from("/opt/my new/plimsoll")));
        assert_eq!(unescaped("%2"), None);
        assert_eq!(unescaped("%zz"), None);
    }
}
