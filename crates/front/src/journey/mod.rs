//! One request, from its head to the head of its answer: checked, routed, held, sent, and sent again where that is right.
//!
//! What can be decided at once is decided before there is anything to wait for, and the rest waits in as few bytes as
//! can be: ten thousand requests may be held at a time.

mod head;
mod intake;
mod passage;

use std::future::ready;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, LOCATION, STRICT_TRANSPORT_SECURITY};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use hyper::body::{Body as _, Incoming};

use crate::answer::{Answer, wants_html};
use crate::body::{BoxError, ResponseBody};
use crate::check::{self, Host};
use crate::found::{Found, Kind};
use crate::headers::{self, IDEMPOTENCY_KEY, RequestId};
use crate::line::Line;
use crate::local::Local;
use crate::route::name_of;
use crate::setup::Setup;
use crate::trace::Trace;
use head::Head;
use passage::Passage;

/// A request under way. A box, so that an idle connection does not carry room for one.
pub(crate) type Journey = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, BoxError>>>>;

/// Answers one request, whatever happens.
pub(crate) fn answer(local: &Rc<Local>, line: &Rc<Line>, request: Request<Incoming>) -> Journey {
    let mut trace = Box::new(Trace::begin(local, line, &request));
    let found = Found::look(request.headers());
    let html = wants_html(request.headers(), found);
    let setup = local.setup();
    match begin(local, line, setup, request, found, &mut trace) {
        Begun::Travels(passage, incoming) => Box::pin(passage.go(trace, html, incoming)),
        Begun::Answered(response) => {
            Box::pin(ready(Ok(parting(finished(response, line, trace, html), local, line))))
        }
    }
}

/// Puts the two ways to an answer together: a service's, or our own.
fn finished(
    response: Result<Response<ResponseBody>, Answer>,
    line: &Line,
    mut trace: Box<Trace>,
    html: bool,
) -> Response<ResponseBody> {
    let response = response.unwrap_or_else(|answer| {
        trace.reason = Some(answer.reason);
        if answer.closes {
            line.meter.unfinished();
        }
        answer.response(html)
    });
    trace.status = response.status().as_u16();
    response.map(|body| body.with_trace(trace))
}

/// Where another process accepts by now, the client comes back to that one.
fn parting(mut response: Response<ResponseBody>, local: &Local, line: &Line) -> Response<ResponseBody> {
    if local.is_leaving() && !line.http2 && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

enum Begun {
    Answered(Result<Response<ResponseBody>, Answer>),
    Travels(Box<Passage>, Option<Incoming>),
}

fn begin(
    local: &Rc<Local>,
    line: &Rc<Line>,
    setup: Arc<Setup>,
    mut request: Request<Incoming>,
    found: Found,
    trace: &mut Trace,
) -> Begun {
    let host = match check::check(&request, found, &setup.limits) {
        Ok(checked) => checked.host,
        Err(answer) => return Begun::Answered(Err(answer)),
    };
    let name = host.as_str();
    if let Some(answered) = local.answers_itself(line, &setup, &request, name) {
        return Begun::Answered(answered);
    }
    let Some(destination) = setup.routes.find(name, request.uri().path()) else {
        return Begun::Answered(Err(Answer::no_route()));
    };
    trace.goes_to(destination.service);
    let upgrade = headers::upgrade(request.headers(), found, request.version());
    let upgrading = upgrade.as_ref().map(|_| hyper::upgrade::on(&mut request));
    let (mut parts, incoming) = request.into_parts();
    headers::to_service(&mut parts.headers, found, line.client.trusted, upgrade.as_ref());
    address(&mut parts, found, &host, trace);
    trace.request_id = Some(RequestId::of(&parts.headers, found, &local.shared.request_numbers));
    // `Connection` may have named it away.
    let keyed = found.has(Kind::IdempotencyKey) && parts.headers.contains_key(IDEMPOTENCY_KEY);
    let head = Head::new(parts, host);
    let passage = Passage::new(local, line, setup, destination, head, keyed, upgrade.zip(upgrading));
    Begun::Travels(Box::new(passage), (!incoming.is_end_stream()).then_some(incoming))
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

/// A path alone as its target, and the host in its header, as a service is asked.
fn address(parts: &mut Parts, found: Found, host: &Host, trace: &mut Trace) {
    let authority = parts.uri.authority().is_some();
    if authority || !found.has(Kind::Host) {
        parts.headers.insert(HOST, host.value().clone());
    }
    if authority {
        let target = parts.uri.path_and_query().map_or("/", |it| it.as_str());
        parts.uri = target.parse().unwrap_or_default();
        trace.asks_for(parts.uri.clone());
    }
}
