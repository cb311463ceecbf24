//! A request's way to an instance: held where that is needed, sent, and sent again where that is right.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use plimsoll_core::gate::{Back, Outcome, Plea, Reach, Ruling, Why};
use plimsoll_core::units::Bytes as Size;
use plimsoll_core::{InstanceId, ServiceId};

use super::head::Head;
use super::intake::{self, Intake};
use super::{finished, parting, secured};
use crate::answer::Answer;
use crate::body::{BoxError, Carried, Progress, RequestBody, ResponseBody};
use crate::check;
use crate::config::ReplayPolicy;
use crate::found::{Found, Kind};
use crate::headers;
use crate::line::Line;
use crate::local::Local;
use crate::patience::LONG;
use crate::pool::{self, Link, Parked};
use crate::reports::{FrontRecord, LostRequest, ReplayedRequest};
use crate::route::Destination;
use crate::setup::Setup;
use crate::shared::{Lease, Place, Verdict, Waiting};
use crate::trace::Trace;
use crate::tunnel;

/// Connections that turn out to have ended are tried this often before a new one is made.
const STALE_MAX: u32 = 3;
/// An instance that ended a connection under a request is tried again this much later, and this often in all.
const SAME_AGAIN: Duration = Duration::from_millis(20);
const SAME_MAX: u8 = 5;

/// A request that is ready to be sent, as often as is right.
pub(super) struct Passage {
    local: Rc<Local>,
    line: Rc<Line>,
    setup: Arc<Setup>,
    destination: Destination,
    head: Head,
    /// It carries an `Idempotency-Key`.
    keyed: bool,
    upgrade: Option<(HeaderValue, OnUpgrade)>,
    /// Of its body; `None` where there is none.
    progress: Option<Arc<Progress>>,
    /// What of its body can be sent again; `None` where it is passed on as it comes.
    kept: Option<Bytes>,
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

impl Passage {
    pub(super) fn new(
        local: &Rc<Local>,
        line: &Rc<Line>,
        setup: Arc<Setup>,
        destination: Destination,
        head: Head,
        keyed: bool,
        upgrade: Option<(HeaderValue, OnUpgrade)>,
    ) -> Self {
        Self {
            local: Rc::clone(local),
            line: Rc::clone(line),
            setup,
            destination,
            head,
            keyed,
            upgrade,
            progress: None,
            kept: None,
        }
    }

    /// To the head of its answer.
    pub(super) async fn go(
        mut self: Box<Self>,
        mut trace: Box<Trace>,
        html: bool,
        incoming: Option<Incoming>,
    ) -> Result<Response<ResponseBody>, BoxError> {
        let is_whole = incoming.is_none();
        let taken = match incoming {
            None => Ok(Intake::NOTHING),
            Some(incoming) => {
                // A box of its own, so that requests without a body have no room for one.
                Box::pin(Intake::take(incoming, &self.line, &self.setup, &mut trace)).await
            }
        };
        let response = match taken {
            Ok(intake) => {
                self.progress = intake.progress;
                self.kept = match &intake.body {
                    RequestBody::Kept(bytes) => bytes.clone(),
                    RequestBody::Nothing => Some(Bytes::new()),
                    RequestBody::Passing(_) => None,
                };
                // Nothing was waited for where there is no body, and a look at the clock is saved.
                let now = if is_whole { trace.began } else { Instant::now() };
                self.travel(intake.body, now, &mut trace).await
            }
            Err(answer) => Err(answer),
        };
        let response = response.map(|response| secured(response, &self.line, &self.setup));
        Ok(parting(finished(response, &self.line, trace, html), &self.local, &self.line))
    }

    async fn travel(
        &mut self,
        body: RequestBody,
        now: Instant,
        trace: &mut Trace,
    ) -> Result<Response<ResponseBody>, Answer> {
        let service = self.destination.service;
        if self.setup.fence && self.local.shared.is_poison(service, self.fingerprint(trace)) {
            return Err(Answer::fenced());
        }
        let size = Size(self.kept.as_ref().map_or(0, Bytes::len) as u64);
        let (ticket, mut place) = self.local.shared.arrive(service, size, now);
        let mut body = Some(body);
        let mut deaths = 0;
        let mut ended = Ended::default();
        loop {
            let lease = match place {
                Place::Go(lease) => lease,
                Place::Refused(refusal) => return Err(Answer::not_sent(refusal)),
                Place::Held(waiting) => Box::pin(wait(waiting, trace)).await?,
            };
            trace.backend = Some(Arc::clone(&lease.backend));
            trace.attempts += 1;
            let sending = body.take().or_else(|| self.kept.clone().map(RequestBody::of));
            // Whatever could not be sent again was refused when it pleaded.
            let Some(sending) = sending else { return Err(Answer::given_up(Why::BodyGone)) };
            let (reach, outcome) = match self.attempt(&lease, sending, deaths > 0, trace).await {
                Attempt::Answered(response, link) => return self.answered(response, link, lease),
                Attempt::NotSent(back) => {
                    body = Some(back);
                    (Reach::NotSent, Outcome::Left)
                }
                Attempt::Unreachable(back) => {
                    body = Some(back);
                    (Reach::NotSent, Outcome::Unreachable)
                }
                Attempt::Lost => {
                    deaths += Box::pin(ended.lost(lease.backend.id)).await;
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
            self.plead(reach, deaths, body.is_some(), instance, trace)?;
            place = self.local.shared.again(service, &Back { ticket, body: size, waited: trace.held });
        }
    }

    /// Whether it may be sent once more after it was sent.
    fn is_repeatable(&self, trace: &Trace) -> bool {
        let body_kept = self.kept.is_some();
        match self.destination.replay {
            ReplayPolicy::Never => false,
            ReplayPolicy::Always => body_kept,
            ReplayPolicy::Safe => body_kept && (trace.method().is_safe() || self.keyed),
        }
    }

    /// Asks whether it may go again; says for the record what becomes of it. `whole`: it is still here as it came.
    fn plead(
        &self,
        reach: Reach,
        deaths: u8,
        whole: bool,
        instance: String,
        trace: &mut Trace,
    ) -> Result<(), Answer> {
        let policy = self.destination.replay;
        let plea = Plea {
            reach,
            safe: trace.method().is_safe() && policy != ReplayPolicy::Never,
            repeatable: policy == ReplayPolicy::Always || (self.keyed && policy == ReplayPolicy::Safe),
            body_kept: whole || self.kept.is_some(),
            deaths,
            fingerprint: if reach == Reach::Sent { self.fingerprint(trace) } else { 0 },
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
                    request_id: trace.request_id(),
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
            request_id: trace.request_id(),
            why,
        };
        self.local.shared.reporter.record(FrontRecord::Lost(lost));
    }

    /// The same for requests that ask for the same thing.
    fn fingerprint(&self, trace: &Trace) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        trace.method().as_str().hash(&mut hasher);
        trace.uri().path_and_query().map(http::uri::PathAndQuery::as_str).hash(&mut hasher);
        self.kept.hash(&mut hasher);
        hasher.finish()
    }

    /// Sends it to one instance, by a connection that is there or a new one.
    async fn attempt(&mut self, lease: &Lease, body: RequestBody, again: bool, trace: &Trace) -> Attempt {
        // What may not be repeated goes by no connection that may just be closing.
        let only_fresh = !trace.method().is_safe();
        let mut body = Some(body);
        let mut stale = 0;
        loop {
            let pool = &self.local.pool;
            let old = !again && self.upgrade.is_none() && stale < STALE_MAX;
            let pooled = old.then(|| pool.take(lease.backend.id, only_fresh)).flatten();
            let reused = pooled.is_some();
            let made = match pooled {
                Some(link) => Some(link),
                None => Box::pin(self.connect(lease)).await,
            };
            let Some(mut link) = made else {
                return Attempt::Unreachable(body.take().unwrap_or(RequestBody::Nothing));
            };
            if !link.is_ready() && !Box::pin(link.ready()).await {
                stale += 1;
                if reused {
                    continue;
                }
                return Attempt::Unreachable(body.take().unwrap_or(RequestBody::Nothing));
            }
            let body_now = body.take().unwrap_or(RequestBody::Nothing);
            let (wanted, client) = (self.is_repeatable(trace), &self.line.client);
            let request = self.head.with(body_now, wanted, lease.backend.protocol, client, trace);
            let mut sending = pin!(link.send(request));
            let patience = self.destination.timeout.unwrap_or(self.setup.limits.answer);
            let answered = loop {
                let frames = self.frames();
                let answered = if patience < LONG {
                    Box::pin(tokio::time::timeout(patience, sending.as_mut())).await.ok()
                } else {
                    self.local.patience.within(patience, sending.as_mut()).await
                };
                // While its body still goes out, that is no wait for the answer.
                if answered.is_some() || self.frames() == frames {
                    break answered;
                }
            };
            match answered {
                None => return Attempt::TimedOut,
                Some(Ok(response)) => return Attempt::Answered(response, link),
                Some(Err(mut failed)) => match failed.take_message() {
                    Some(back) => {
                        let (parts, back) = back.into_parts();
                        self.head.back(parts);
                        if !reused {
                            return Attempt::NotSent(back);
                        }
                        stale += 1;
                        body = Some(back);
                    }
                    None => return self.why(failed.error()),
                },
            }
        }
    }

    /// Changes while its body goes out.
    fn frames(&self) -> u32 {
        self.progress.as_ref().map_or(0, |it| it.frames())
    }

    fn why(&self, error: &hyper::Error) -> Attempt {
        let progress = self.progress.as_deref();
        if progress.is_some_and(Progress::is_too_large) {
            Attempt::BadBody(intake::too_large())
        } else if progress.is_some_and(Progress::is_broken) {
            Attempt::BadBody(intake::broken())
        } else if error.is_parse() || error.is_parse_too_large() || error.is_parse_status() {
            Attempt::BadAnswer
        } else {
            Attempt::Lost
        }
    }

    async fn connect(&self, lease: &Lease) -> Option<Link> {
        let upgrades = self.upgrade.is_some();
        self.local.pool.connect(&lease.backend, self.setup.limits.connect, upgrades).await.ok()
    }

    /// The answer on its way to the client.
    fn answered(
        &mut self,
        mut response: Response<Incoming>,
        link: Link,
        mut lease: Lease,
    ) -> Result<Response<ResponseBody>, Answer> {
        lease.answered();
        let said = Said::look(response.headers());
        let Said { found, content_type, .. } = said;
        if !check::is_framed_well(found, said.length, said.coding) {
            lease.finish(Outcome::Lost);
            return Err(Answer::bad_answer());
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switched(response, lease);
        }
        let stream = content_type.is_some_and(is_event_stream);
        if stream {
            lease.streams();
        }
        // One that still carries an upload would have the next request wait behind it.
        let idle = !self.progress.as_deref().is_some_and(Progress::is_uploading);
        let keep = idle.then(|| pool::kept(said.connection, said.keep_alive)).flatten();
        let parked = keep.map(|keep| Parked::new(&self.local.pool, link, keep));
        headers::to_client(response.headers_mut(), found);
        *response.version_mut() = Version::HTTP_11;
        Ok(response.map(|incoming| ResponseBody::carried(Carried::new(incoming, lease, parked, stream))))
    }

    /// The service speaks another protocol from here on, as the client wished.
    fn switched(
        &mut self,
        mut response: Response<Incoming>,
        mut lease: Lease,
    ) -> Result<Response<ResponseBody>, Answer> {
        let Some((_, client)) = self.upgrade.take() else {
            lease.finish(Outcome::Lost);
            return Err(Answer::bad_answer());
        };
        lease.streams();
        let protocol = response.headers().get(http::header::UPGRADE).cloned();
        let service = hyper::upgrade::on(&mut response);
        let websocket = protocol.as_ref().is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"websocket"));
        // Its connection is over for HTTP, and still takes its places.
        let line = Rc::clone(&self.line);
        let stall = self.setup.limits.write_stall;
        tokio::task::spawn_local(async move {
            tunnel::run(client, service, lease, websocket, stall).await;
            drop(line);
        });
        let (mut parts, _) = response.into_parts();
        let found = Found::look(&parts.headers);
        headers::to_client(&mut parts.headers, found);
        parts.headers.insert(http::header::CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = protocol {
            parts.headers.insert(http::header::UPGRADE, protocol);
        }
        Ok(Response::from_parts(parts, ResponseBody::empty()))
    }
}

/// Until the gate has a word for it.
async fn wait(waiting: Waiting, trace: &mut Trace) -> Result<Lease, Answer> {
    let since = Instant::now();
    let verdict = waiting.verdict().await;
    trace.held += since.elapsed();
    match verdict {
        Verdict::Go(lease) => Ok(lease),
        Verdict::Refused(refusal) => Err(Answer::not_sent(refusal)),
    }
}

const EVENTS: &[u8] = b"text/event-stream";

fn is_event_stream(content_type: &HeaderValue) -> bool {
    content_type.as_bytes().get(..EVENTS.len()).is_some_and(|it| it.eq_ignore_ascii_case(EVENTS))
}

/// What an answer's headers say that matters to us, each where it is said first.
#[derive(Default)]
struct Said<'a> {
    found: Found,
    length: Option<&'a HeaderValue>,
    coding: Option<&'a HeaderValue>,
    content_type: Option<&'a HeaderValue>,
    connection: Option<&'a HeaderValue>,
    keep_alive: Option<&'a HeaderValue>,
}

impl<'a> Said<'a> {
    fn look(headers: &'a HeaderMap) -> Self {
        let mut said = Self::default();
        said.found = Found::look_at(headers, |kind, value| {
            let first = match kind {
                Kind::ContentLength => &mut said.length,
                Kind::TransferEncoding => &mut said.coding,
                Kind::ContentType => &mut said.content_type,
                Kind::Connection => &mut said.connection,
                Kind::KeepAlive => &mut said.keep_alive,
                Kind::Host
                | Kind::Hop
                | Kind::Te
                | Kind::Ours
                | Kind::Expect
                | Kind::Who
                | Kind::Cookie
                | Kind::Accept
                | Kind::RequestId
                | Kind::IdempotencyKey
                | Kind::Underscored => return,
            };
            first.get_or_insert(value);
        });
        said
    }
}
