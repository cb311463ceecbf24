//! One request, from its head to the head of its answer: checked, routed, held, sent, and sent again where that is right.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, LOCATION, STRICT_TRANSPORT_SECURITY};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::TrySendError;
use hyper::upgrade::OnUpgrade;
use plimsoll_core::gate::{Back, Outcome, Plea, Reach, Ruling, Why};
use plimsoll_core::units::Bytes as Size;
use plimsoll_core::{InstanceId, ServiceId};

use crate::answer::{Answer, wants_html};
use crate::body::{Carried, Progress, RequestBody, ResponseBody, Upload};
use crate::check;
use crate::config::{Protocol, ReplayPolicy};
use crate::connection::Counted;
use crate::headers::{self, IDEMPOTENCY_KEY, REQUEST_ID};
use crate::line::Line;
use crate::local::Local;
use crate::pool::{Link, Parked};
use crate::reports::{FrontRecord, LostRequest, ReplayedRequest};
use crate::route::{Destination, name_of};
use crate::setup::Setup;
use crate::shared::{Lease, Place, Verdict};
use crate::trace::Trace;
use crate::tunnel;

/// Connections that turn out to have ended are tried this often before a new one is made.
const STALE_MAX: u32 = 3;
/// An instance that ended a connection under a request is tried again this much later, and this often in all.
const SAME_AGAIN: Duration = Duration::from_millis(20);
const SAME_MAX: u8 = 5;

/// Answers one request, whatever happens.
pub(crate) async fn answer(
    local: Rc<Local>,
    line: Rc<Line>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let mut trace = Box::new(Trace::begin(&local, &line, &request));
    let html = wants_html(request.headers());
    let response = match travel(&local, &line, request, &mut trace).await {
        Ok(response) => response,
        Err(answer) => {
            trace.reason = Some(answer.reason);
            if answer.closes {
                line.meter.unfinished();
            }
            answer.response(html)
        }
    };
    trace.status = response.status().as_u16();
    response.map(|body| body.with_trace(trace))
}

async fn travel(
    local: &Rc<Local>,
    line: &Rc<Line>,
    mut request: Request<Incoming>,
    trace: &mut Trace,
) -> Result<Response<ResponseBody>, Answer> {
    let setup = local.setup();
    let host = check::check(&request, &setup.limits)?.host;
    if let Some(answered) = local.answers_itself(line, &setup, &request, &host) {
        return answered;
    }
    let destination = setup.routes.find(&host, request.uri().path()).ok_or_else(Answer::no_route)?;
    trace.service = Some(destination.service);
    let upgrade = headers::upgrade(request.headers(), request.version());
    let upgrading = upgrade.as_ref().map(|_| hyper::upgrade::on(&mut request));
    let (mut parts, incoming) = request.into_parts();
    let intake = Intake::take(incoming, line, &setup, trace).await?;
    make_fit(&mut parts, line, local, &host, upgrade.as_ref());
    let progress = Arc::clone(&intake.progress);
    let asked = Asked { local, setup: &setup, destination, parts, upgrade, progress };
    asked.go(intake.body, upgrading, trace).await.map(|response| secured(response, line, &setup))
}

impl Local {
    /// What needs no service: a certificate authority's question, a request on the wrong connection, a redirect to TLS.
    fn answers_itself<B>(
        &self,
        line: &Line,
        setup: &Setup,
        request: &Request<B>,
        host: &str,
    ) -> Option<Result<Response<ResponseBody>, Answer>> {
        if !line.client.tls
            && let Some(tls) = &self.tls
            && let Some(key) = tls.challenges.http_answer(request.uri().path())
        {
            return Some(Ok(Response::new(ResponseBody::full(Bytes::from(key)))));
        }
        if let (Some(tls), Some(sni)) = (&self.tls, &line.sni)
            && !tls.certificates.same_site(sni, name_of(host))
        {
            return Some(Err(Answer::misdirected()));
        }
        let port = setup.redirect.filter(|_| !line.client.tls)?;
        Some(redirect(request.uri(), host, port))
    }
}

/// The same address by TLS, with method and body kept.
fn redirect(uri: &Uri, host: &str, port: u16) -> Result<Response<ResponseBody>, Answer> {
    let target = uri.path_and_query().map_or("/", |it| it.as_str());
    let name = name_of(host);
    let place = if port == 443 {
        format!("https://{name}{target}")
    } else {
        format!("https://{name}:{port}{target}")
    };
    let Ok(place) = HeaderValue::from_str(&place) else {
        return Err(Answer::refused(
            StatusCode::BAD_REQUEST,
            "bad-target",
            "The address cannot be redirected.",
        ));
    };
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(LOCATION, place);
    Ok(response)
}

fn secured(mut response: Response<ResponseBody>, line: &Line, setup: &Setup) -> Response<ResponseBody> {
    if let Some(hsts) = setup.hsts.filter(|_| line.client.tls)
        && let Ok(value) = HeaderValue::from_str(&format!("max-age={}", hsts.max_age.as_secs()))
    {
        response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, value);
    }
    response
}

/// The head as the service gets it.
fn make_fit(parts: &mut Parts, line: &Line, local: &Local, host: &str, upgrade: Option<&HeaderValue>) {
    headers::to_service(&mut parts.headers, &line.client, host, upgrade, &local.shared.request_numbers);
    if let Ok(host) = HeaderValue::from_str(host) {
        parts.headers.insert(HOST, host);
    }
    if parts.uri.authority().is_some() {
        let target = parts.uri.path_and_query().map_or("/", |it| it.as_str());
        parts.uri = target.parse().unwrap_or_default();
    }
    parts.version = Version::HTTP_11;
}

/// A request's body as it was taken in.
struct Intake {
    body: RequestBody,
    progress: Arc<Progress>,
}

impl Intake {
    /// A small body is read now: it can be sent again then, and a slow client keeps no instance busy.
    async fn take(incoming: Incoming, line: &Line, setup: &Setup, trace: &mut Trace) -> Result<Self, Answer> {
        let progress = Arc::<Progress>::default();
        if incoming.is_end_stream() {
            return Ok(Self { body: RequestBody::Nothing, progress });
        }
        let limits = &setup.limits;
        let told = incoming.size_hint();
        if told.lower() > limits.body_bytes {
            return Err(body_too_large());
        }
        trace.request_bytes = told.lower();
        let small = told.exact().is_some_and(|bytes| bytes <= limits.keep_bytes as u64);
        let upload = Upload::new(incoming, line, limits.body_bytes, Arc::clone(&progress));
        let mut passing = RequestBody::Passing(Box::new(upload));
        if !small {
            return Ok(Self { body: passing, progress });
        }
        let bytes = read_whole(&mut passing).await?;
        Ok(Self { body: RequestBody::Kept(Some(bytes)), progress })
    }
}

async fn read_whole(body: &mut RequestBody) -> Result<Bytes, Answer> {
    let mut whole: Option<Bytes> = None;
    let mut more = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| bad_body())?;
        let Ok(data) = frame.into_data() else { continue };
        // Most bodies come in one piece, which needs no copy.
        match whole.take() {
            None if more.is_empty() => whole = Some(data),
            None => more.extend_from_slice(&data),
            Some(first) => {
                more.extend_from_slice(&first);
                more.extend_from_slice(&data);
            }
        }
    }
    Ok(whole.unwrap_or_else(|| more.freeze()))
}

const fn bad_body() -> Answer {
    Answer::refused(StatusCode::BAD_REQUEST, "bad-body", "The body is not framed as it says.")
}

const fn body_too_large() -> Answer {
    Answer::refused(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is larger than is taken here.")
}

/// A request that is ready to be sent, as often as is right.
struct Asked<'a> {
    local: &'a Rc<Local>,
    setup: &'a Setup,
    destination: Destination,
    parts: Parts,
    upgrade: Option<HeaderValue>,
    progress: Arc<Progress>,
}

/// The instance whose connection ended last under this request. One death can end several: the dying one may still take
/// connections until it is all gone.
#[derive(Default)]
struct Ended {
    last: Option<InstanceId>,
    again: u8,
}

impl Ended {
    /// How many more deaths that makes.
    async fn lost(&mut self, instance: InstanceId) -> u8 {
        if self.last.replace(instance) != Some(instance) {
            self.again = 0;
            return 1;
        }
        self.again += 1;
        tokio::time::sleep(SAME_AGAIN).await;
        u8::from(self.again >= SAME_MAX)
    }
}

/// How one attempt ended.
enum Attempt {
    Answered(Response<Incoming>, Link),
    /// Certainly not sent; the request is still whole.
    NotSent(RequestBody),
    /// Nobody listens there.
    Unreachable(RequestBody),
    /// Sent in whole or in part, and no answer.
    Lost,
    TimedOut,
    BadAnswer,
    /// The client's own body was at fault.
    BadBody(Answer),
}

impl Asked<'_> {
    async fn go(
        &self,
        body: RequestBody,
        upgrading: Option<OnUpgrade>,
        trace: &mut Trace,
    ) -> Result<Response<ResponseBody>, Answer> {
        let service = self.destination.service;
        // What can be sent again; nothing is kept of what is passed on as it comes.
        let kept = match &body {
            RequestBody::Kept(bytes) => bytes.clone(),
            RequestBody::Nothing => Some(Bytes::new()),
            RequestBody::Passing(_) => None,
        };
        if self.setup.fence && self.local.shared.is_poison(service, self.fingerprint(kept.as_ref())) {
            return Err(Answer::fenced());
        }
        let size = Size(kept.as_ref().map_or(0, Bytes::len) as u64);
        let (ticket, mut place) = self.local.shared.arrive(service, size);
        let mut body = Some(body);
        let mut deaths = 0;
        let mut ended = Ended::default();
        loop {
            let lease = self.lease(place, trace).await?;
            trace.backend = Some(Arc::clone(&lease.backend));
            trace.attempts += 1;
            let sending = body.take().or_else(|| kept.clone().map(RequestBody::of));
            // Whatever could not be sent again was refused when it pleaded.
            let Some(sending) = sending else { return Err(Answer::given_up(Why::BodyGone)) };
            let (reach, outcome) = match self.attempt(&lease, sending, deaths > 0).await {
                Attempt::Answered(response, link) => {
                    return self.answered(response, link, lease, upgrading);
                }
                Attempt::NotSent(back) => {
                    body = Some(back);
                    (Reach::NotSent, Outcome::Left)
                }
                Attempt::Unreachable(back) => {
                    body = Some(back);
                    (Reach::NotSent, Outcome::Unreachable)
                }
                Attempt::Lost => {
                    deaths += ended.lost(lease.backend.id).await;
                    (Reach::Sent, Outcome::Lost)
                }
                Attempt::TimedOut => {
                    lease.finish(Outcome::TimedOut);
                    return Err(Answer::timed_out());
                }
                Attempt::BadAnswer => {
                    lease.finish(Outcome::Lost);
                    return Err(Answer::bad_answer());
                }
                Attempt::BadBody(answer) => {
                    lease.finish(Outcome::Left);
                    return Err(answer);
                }
            };
            let instance = lease.backend.name.clone();
            lease.finish(outcome);
            self.plead(reach, deaths, body.as_ref(), kept.as_ref(), instance, trace)?;
            place = self.local.shared.again(service, &Back { ticket, body: size, waited: trace.held });
        }
    }

    /// Waits where that is needed.
    async fn lease(&self, place: Place, trace: &mut Trace) -> Result<Lease, Answer> {
        match place {
            Place::Go(lease) => Ok(lease),
            Place::Refused(refusal) => Err(Answer::not_sent(refusal)),
            Place::Held(waiting) => {
                let since = Instant::now();
                let verdict = waiting.verdict().await;
                trace.held += since.elapsed();
                match verdict {
                    Verdict::Go(lease) => Ok(lease),
                    Verdict::Refused(refusal) => Err(Answer::not_sent(refusal)),
                }
            }
        }
    }

    fn is_safe(&self) -> bool {
        self.parts.method.is_safe()
    }

    /// Asks whether it may go again; says for the record what becomes of it.
    fn plead(
        &self,
        reach: Reach,
        deaths: u8,
        back: Option<&RequestBody>,
        kept: Option<&Bytes>,
        instance: String,
        trace: &mut Trace,
    ) -> Result<(), Answer> {
        let policy = self.destination.replay;
        let keyed = self.parts.headers.contains_key(IDEMPOTENCY_KEY);
        let plea = Plea {
            reach,
            safe: self.is_safe() && policy != ReplayPolicy::Never,
            repeatable: policy == ReplayPolicy::Always || (keyed && policy == ReplayPolicy::Safe),
            body_kept: back.is_some() || kept.is_some(),
            deaths,
            fingerprint: if reach == Reach::Sent { self.fingerprint(kept) } else { 0 },
        };
        let service = self.destination.service;
        match self.local.shared.plead(service, &plea) {
            Ruling::Again if reach == Reach::Sent => {
                trace.replays += 1;
                let replayed = ReplayedRequest {
                    service,
                    instance,
                    method: trace.method().to_string(),
                    path: trace.path().to_owned(),
                    request_id: self.request_id(),
                };
                self.local.shared.reporter.record(FrontRecord::Replayed(replayed));
                Ok(())
            }
            Ruling::Again => Ok(()),
            Ruling::GiveUp(why) => {
                if reach == Reach::Sent {
                    self.report_lost(service, instance, why, trace);
                }
                Err(Answer::given_up(why))
            }
        }
    }

    fn report_lost(&self, service: ServiceId, instance: String, why: Why, trace: &Trace) {
        let lost = LostRequest {
            service,
            instance,
            method: trace.method().to_string(),
            path: trace.path().to_owned(),
            request_id: self.request_id(),
            why,
        };
        self.local.shared.reporter.record(FrontRecord::Lost(lost));
    }

    fn request_id(&self) -> String {
        let id = self.parts.headers.get(REQUEST_ID).and_then(|it| it.to_str().ok());
        id.unwrap_or_default().to_owned()
    }

    /// The same for requests that ask for the same thing.
    fn fingerprint(&self, kept: Option<&Bytes>) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        self.parts.method.as_str().hash(&mut hasher);
        self.parts.uri.path_and_query().map(http::uri::PathAndQuery::as_str).hash(&mut hasher);
        kept.hash(&mut hasher);
        hasher.finish()
    }

    /// Sends it to one instance, by a connection that is there or a new one.
    async fn attempt(&self, lease: &Lease, body: RequestBody, again: bool) -> Attempt {
        let pool = &self.local.pool;
        let backend = &lease.backend;
        // What may not be repeated goes by no connection that may just be closing.
        let only_fresh = !self.is_safe();
        let mut request = self.request(body, backend.protocol);
        let mut stale = 0;
        loop {
            let old = !again && self.upgrade.is_none() && stale < STALE_MAX;
            let pooled = old.then(|| pool.take(backend.id, only_fresh)).flatten();
            let reused = pooled.is_some();
            let mut link = match pooled {
                Some(link) => link,
                None => {
                    match pool.connect(backend, self.setup.limits.connect, self.upgrade.is_some()).await {
                        Ok(link) => link,
                        Err(_) => return Attempt::Unreachable(request.into_body()),
                    }
                }
            };
            if !link.ready().await {
                stale += 1;
                if reused {
                    continue;
                }
                return Attempt::Unreachable(request.into_body());
            }
            match self.response(&mut link, request).await {
                None => return Attempt::TimedOut,
                Some(Ok(response)) => return Attempt::Answered(response, link),
                Some(Err(mut failed)) => match failed.take_message() {
                    Some(back) if reused => {
                        stale += 1;
                        request = back;
                    }
                    Some(back) => return Attempt::NotSent(back.into_body()),
                    None => return self.failed(failed.error()),
                },
            }
        }
    }

    /// Sends it. `None` where nothing has come of it for too long; while its body still goes out, that is no wait.
    async fn response(
        &self,
        link: &mut Link,
        request: Request<RequestBody>,
    ) -> Option<Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> {
        let patience = self.destination.timeout.unwrap_or(self.setup.limits.answer);
        let response = link.send(request);
        tokio::pin!(response);
        loop {
            let frames = self.progress.frames();
            match tokio::time::timeout(patience, response.as_mut()).await {
                Ok(response) => return Some(response),
                Err(_) if self.progress.frames() == frames => return None,
                Err(_) => {}
            }
        }
    }

    fn failed(&self, error: &hyper::Error) -> Attempt {
        if self.progress.is_too_large() {
            return Attempt::BadBody(body_too_large());
        }
        if self.progress.is_broken() {
            return Attempt::BadBody(bad_body());
        }
        if error.is_parse() || error.is_parse_too_large() || error.is_parse_status() {
            Attempt::BadAnswer
        } else {
            Attempt::Lost
        }
    }

    fn request(&self, body: RequestBody, protocol: Protocol) -> Request<RequestBody> {
        let mut request = Request::new(body);
        request.method_mut().clone_from(&self.parts.method);
        request.uri_mut().clone_from(&self.parts.uri);
        request.headers_mut().clone_from(&self.parts.headers);
        match protocol {
            Protocol::Http1 => {}
            Protocol::H2c => headers::to_http2(&mut request),
        }
        request
    }

    /// The answer on its way to the client.
    fn answered(
        &self,
        mut response: Response<Incoming>,
        link: Link,
        mut lease: Lease,
        upgrading: Option<OnUpgrade>,
    ) -> Result<Response<ResponseBody>, Answer> {
        lease.answered();
        if !check::is_framed_well(response.headers()) {
            lease.finish(Outcome::Lost);
            return Err(Answer::bad_answer());
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let (Some(client), Some(_)) = (upgrading, &self.upgrade) else {
                lease.finish(Outcome::Lost);
                return Err(Answer::bad_answer());
            };
            lease.streams();
            let protocol = response.headers().get(http::header::UPGRADE).cloned();
            let service = hyper::upgrade::on(&mut response);
            let websocket =
                protocol.as_ref().is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"websocket"));
            // Its connection is over for HTTP, and still takes a place.
            let counted = Counted::new(self.local);
            let stall = self.setup.limits.write_stall;
            tokio::task::spawn_local(async move {
                tunnel::run(client, service, lease, websocket, stall).await;
                drop(counted);
            });
            let (mut parts, _) = response.into_parts();
            headers::to_client(&mut parts.headers);
            parts.headers.insert(http::header::CONNECTION, HeaderValue::from_static("upgrade"));
            if let Some(protocol) = protocol {
                parts.headers.insert(http::header::UPGRADE, protocol);
            }
            return Ok(Response::from_parts(parts, ResponseBody::empty()));
        }
        let stream = is_event_stream(&response);
        if stream {
            lease.streams();
        }
        // One that still carries an upload would have the next request wait behind it.
        let idle = !self.progress.is_uploading();
        let parked = idle.then(|| Parked::new(&self.local.pool, &lease.backend, link, &response)).flatten();
        let (mut parts, incoming) = response.into_parts();
        headers::to_client(&mut parts.headers);
        parts.version = Version::HTTP_11;
        let carried = Carried::new(incoming, lease, parked, stream);
        Ok(Response::from_parts(parts, ResponseBody::carried(carried)))
    }
}

const EVENTS: &[u8] = b"text/event-stream";

fn is_event_stream<B>(response: &Response<B>) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.get(..EVENTS.len()).is_some_and(|it| it.eq_ignore_ascii_case(EVENTS))
}
