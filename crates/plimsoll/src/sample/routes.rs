//! What the service answers.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes};
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::faults::Fault;
use super::inject::Faults;
use super::query::{Query, QueryError};
use super::reports::{Draft, Reports};
use super::say;

const BODY_BYTES_MAX: usize = 64 * 1024;
const BODY_WAIT_MAX: Duration = Duration::from_secs(10);
const LIST_DEFAULT: u64 = 20;
const LIST_MAX: u64 = 200;
/// The headers by which a request says which request it is, the first one counts.
const REQUEST_KEYS: [&str; 2] = ["idempotency-key", "x-request-id"];

pub(super) type Answer = Response<Full<Bytes>>;

/// The service: its store, its faults and what it counts.
#[derive(Debug)]
pub(super) struct Service {
    reports: Reports,
    pub(super) faults: Rc<Faults>,
    requests: Cell<u64>,
    in_flight: Cell<u64>,
    stopping: Cell<bool>,
}

/// Why a request is not carried out; each says whose fault it is by its status.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("nothing at {0}")]
    NotFound(String),
    #[error("only {0} here")]
    Method(&'static str),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("a body has at most {BODY_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the body did not come within {} s", BODY_WAIT_MAX.as_secs())]
    TooSlow,
    #[error("the body broke off")]
    BrokenOff,
    #[error("a report is JSON with a title and a body: {0}")]
    Draft(#[from] serde_json::Error),
    #[error("the database does not answer: {0}")]
    Database(#[from] rusqlite::Error),
    #[error("the fault did not start: {0}")]
    Fault(#[from] std::io::Error),
}

impl Service {
    pub(super) fn new(reports: Reports, faults: Faults) -> Self {
        Self {
            reports,
            faults: Rc::new(faults),
            requests: Cell::new(0),
            in_flight: Cell::new(0),
            stopping: Cell::new(false),
        }
    }

    /// From now on each answer is the last one on its connection.
    pub(super) fn stop(&self) {
        self.stopping.set(true);
    }

    /// Requests that were received and not answered yet.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.get()
    }

    pub(super) async fn answer<B>(self: Rc<Self>, request: Request<B>) -> Answer
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let _in_flight = InFlight::of(&self);
        sleep(self.faults.delay(Instant::now())).await;
        let mut answer = self.route(request).await.unwrap_or_else(|refusal| refusal.answer());
        if self.stopping.get() {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    async fn route<B>(&self, request: Request<B>) -> Result<Answer, Refusal>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let (path, get) = (head.uri.path(), head.method == Method::GET);
        let query = Query::parse(head.uri.query().unwrap_or_default());
        match path {
            "/health" if get => self.health(),
            "/stats" if get => self.stats(),
            "/health" | "/stats" => Err(Refusal::Method("GET")),
            "/reports" if get => self.list(query),
            "/reports" if head.method == Method::POST => self.create(&head.headers, body).await,
            "/reports" => Err(Refusal::Method("GET, POST")),
            _ => match (path.strip_prefix("/reports/"), path.strip_prefix("/fault/")) {
                (Some(id), _) if get => self.one(path, id),
                (Some(_), _) => Err(Refusal::Method("GET")),
                (None, Some(name)) if head.method == Method::POST => self.fault(path, name, query),
                (None, Some(_)) => Err(Refusal::Method("POST")),
                (None, None) => Err(Refusal::NotFound(path.to_owned())),
            },
        }
    }

    fn health(&self) -> Result<Answer, Refusal> {
        self.reports.check()?;
        Ok(json_answer(StatusCode::OK, &json!({ "status": "ok" })))
    }

    fn stats(&self) -> Result<Answer, Refusal> {
        #[derive(Serialize)]
        struct Stats<T, L> {
            pid: u32,
            requests: u64,
            in_flight: u64,
            #[serde(flatten)]
            tally: T,
            #[serde(flatten)]
            leaked: L,
        }
        let stats = Stats {
            pid: std::process::id(),
            requests: self.requests.get(),
            in_flight: self.in_flight.get(),
            tally: self.reports.tally()?,
            leaked: self.faults.leaked(),
        };
        Ok(json_answer(StatusCode::OK, &stats))
    }

    fn list(&self, mut query: Query<'_>) -> Result<Answer, Refusal> {
        let limit = query.count("limit", LIST_DEFAULT)?.min(LIST_MAX);
        let before = i64::try_from(query.count("before", u64::MAX)?).unwrap_or(i64::MAX);
        query.finish()?;
        let reports = self.reports.newest(u32::try_from(limit).unwrap_or(u32::MAX), before)?;
        Ok(json_answer(StatusCode::OK, &json!({ "reports": reports })))
    }

    fn one(&self, path: &str, id: &str) -> Result<Answer, Refusal> {
        let missing = || Refusal::NotFound(path.to_owned());
        let report = self.reports.get(id.parse().map_err(|_| missing())?)?.ok_or_else(missing)?;
        Ok(json_answer(StatusCode::OK, &report))
    }

    async fn create<B>(&self, headers: &HeaderMap, body: B) -> Result<Answer, Refusal>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let draft: Draft = serde_json::from_slice(&read(body).await?)?;
        let id = self.reports.add(&draft, request_key(headers))?;
        let mut answer = json_answer(StatusCode::CREATED, &json!({ "id": id }));
        if let Ok(location) = HeaderValue::try_from(format!("/reports/{id}")) {
            answer.headers_mut().insert(LOCATION, location);
        }
        Ok(answer)
    }

    fn fault(&self, path: &str, name: &str, query: Query<'_>) -> Result<Answer, Refusal> {
        let fault = Fault::parse(name, query)?.ok_or_else(|| Refusal::NotFound(path.to_owned()))?;
        self.faults.start(fault)?;
        Ok(json_answer(StatusCode::ACCEPTED, &json!({ "started": name })))
    }
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Query(_) | Self::BrokenOff => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Draft(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Database(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Fault(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn answer(&self) -> Answer {
        let status = self.status();
        if status.is_server_error() {
            say(&format!("error: {self}"));
        }
        let mut answer = json_answer(status, &json!({ "error": self.to_string() }));
        if let Self::Method(allowed) = self {
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        }
        answer
    }
}

/// Counts a request for as long as it lives, whether it is answered or its client goes away.
struct InFlight(Rc<Service>);

impl InFlight {
    fn of(service: &Rc<Service>) -> Self {
        service.requests.set(service.requests.get() + 1);
        service.in_flight.set(service.in_flight.get() + 1);
        Self(Rc::clone(service))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

/// The whole body, bounded in bytes and in time.
async fn read<B>(body: B) -> Result<Bytes, Refusal>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let whole = Limited::new(body, BODY_BYTES_MAX).collect();
    match timeout(BODY_WAIT_MAX, whole).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::TooLarge),
        Ok(Err(_)) => Err(Refusal::BrokenOff),
        Err(_) => Err(Refusal::TooSlow),
    }
}

fn request_key(headers: &HeaderMap) -> Option<&str> {
    REQUEST_KEYS.iter().find_map(|name| headers.get(*name)?.to_str().ok())
}

fn json_answer(status: StatusCode, body: &impl Serialize) -> Answer {
    let text = serde_json::to_vec(body).expect("our own structs have text keys and finite numbers");
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
