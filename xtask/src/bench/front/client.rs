//! One client of the service under load: a request on a connection that is kept or on a new one, and how it ended.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::timeout;

/// Browsers and libraries wait about so long.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);
/// Connections that are kept, and taken in turn, so that every handover finds some that are idle.
const KEPT: usize = 16;
/// The header by which our front says why it answered for itself.
const REASON: &str = "plimsoll-reason";

type Sender = SendRequest<Full<Bytes>>;

/// Connections of one load.
#[derive(Debug)]
pub(super) struct Client {
    address: SocketAddr,
    kept: RefCell<VecDeque<Sender>>,
    /// Kept ones that the other side closed.
    closed: Cell<u64>,
}

/// How a request ended, for the one who sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Done,
    /// Answered with another status than 2xx; with the front's reason where it was the front.
    Refused(StatusCode, String),
    Broken(String),
}

impl Client {
    pub(super) fn new(port: u16) -> Self {
        let address = (Ipv4Addr::LOCALHOST, port).into();
        Self { address, kept: RefCell::default(), closed: Cell::new(0) }
    }

    pub(super) fn closed_on_us(&self) -> u64 {
        self.closed.get()
    }

    /// `keep`: on one of the kept connections.
    pub(super) async fn ask(&self, keep: bool, post: Option<String>) -> End {
        match timeout(PATIENCE, self.exchange(keep, post)).await {
            Ok(Ok((status, _))) if status.is_success() => End::Done,
            Ok(Ok((status, reason))) => End::Refused(status, reason),
            Ok(Err(error)) => End::Broken(error),
            Err(_) => End::Broken(format!("no answer within {PATIENCE:?}")),
        }
    }

    async fn exchange(&self, keep: bool, post: Option<String>) -> Result<(StatusCode, String), String> {
        let mut request = request(keep, post);
        loop {
            let found = if keep { self.take_kept() } else { None };
            let is_kept = found.is_some();
            let mut sender = match found {
                Some(sender) => sender,
                None => self.connect().await.map_err(|error| format!("connect: {error}"))?,
            };
            match sender.try_send_request(request).await {
                Ok(answer) => {
                    let status = answer.status();
                    let reason = answer.headers().get(REASON).and_then(|reason| reason.to_str().ok());
                    let reason = reason.unwrap_or("no reason given").to_owned();
                    answer.into_body().collect().await.map_err(|error| format!("body: {}", words(&error)))?;
                    if keep && sender.ready().await.is_ok() {
                        self.kept.borrow_mut().push_back(sender);
                    }
                    return Ok((status, reason));
                }
                Err(mut refused) => match refused.take_message() {
                    // Not a byte of it was sent: every client then takes another connection.
                    Some(unsent) if is_kept => {
                        self.closed.set(self.closed.get() + 1);
                        request = unsent;
                    }
                    Some(_) | None => return Err(words(&refused.into_error())),
                },
            }
        }
    }

    /// `None` while there are fewer than wanted.
    fn take_kept(&self) -> Option<Sender> {
        let mut kept = self.kept.borrow_mut();
        let before = kept.len();
        kept.retain(|sender| !sender.is_closed());
        self.closed.set(self.closed.get() + (before - kept.len()) as u64);
        if kept.len() < KEPT { None } else { kept.pop_front() }
    }

    async fn connect(&self) -> Result<Sender, String> {
        let stream = TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|it| words(&it))?;
        // How it ends is told to the one who asks.
        spawn_local(async move { drop(connection.await) });
        Ok(sender)
    }
}

/// With a body it is a POST of a report with that title.
fn request(keep: bool, post: Option<String>) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    let headers = request.headers_mut();
    headers.insert(HOST, hyper::header::HeaderValue::from_static("bench"));
    if !keep {
        headers.insert(CONNECTION, hyper::header::HeaderValue::from_static("close"));
    }
    *request.uri_mut() = hyper::Uri::from_static("/reports?limit=3");
    if let Some(title) = post {
        headers_of_json(&mut request);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = hyper::Uri::from_static("/reports");
        let draft = serde_json::json!({ "title": title, "body": "a report of the bench" });
        *request.body_mut() = Full::from(draft.to_string());
    }
    request
}

fn headers_of_json(request: &mut Request<Full<Bytes>>) {
    let json = hyper::header::HeaderValue::from_static("application/json");
    request.headers_mut().insert(CONTENT_TYPE, json);
}

/// With what it was caused by, which is what tells a reset from a silent close.
fn words(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    std::iter::once(error.to_string()).chain(causes.map(ToString::to_string)).collect::<Vec<_>>().join(": ")
}

/// When a request was to be sent, was begun, and ended.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    /// A POST's title.
    pub(super) title: Option<String>,
    pub(super) intended: Instant,
    pub(super) begun: Instant,
    pub(super) ended: Instant,
    pub(super) end: End,
}
