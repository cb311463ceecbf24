//! A request's head, for as often as the request is sent.

use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Request, Version};

use crate::body::RequestBody;
use crate::check::Host;
use crate::config::Protocol;
use crate::headers::{self, Client, RequestId, SAID_MAX};
use crate::trace::Trace;

/// The first time the head goes as it came. For a second one its headers are kept in a list: most requests need none, and
/// a list is made in half the time of a map.
pub(super) struct Head {
    now: Now,
    kept: Option<Vec<(HeaderName, HeaderValue)>>,
    host: Host,
}

enum Now {
    /// As its client sent it, and fit for the service.
    Came(Parts),
    /// It was to be sent, and was not.
    Back(Parts),
    /// On its way.
    Gone,
}

impl Head {
    pub(super) fn new(mut parts: Parts, host: Host) -> Self {
        // What its client's connection was like is nothing to the one that it goes by.
        parts.version = Version::HTTP_11;
        parts.extensions = Extensions::new();
        Self { now: Now::Came(parts), kept: None, host }
    }

    /// The head with this body, to be sent. `again`: it may be wanted once more after that.
    pub(super) fn with(
        &mut self,
        body: RequestBody,
        again: bool,
        protocol: Protocol,
        client: &Client,
        trace: &Trace,
    ) -> Request<RequestBody> {
        let mut request = match std::mem::replace(&mut self.now, Now::Gone) {
            Now::Came(parts) => {
                if again {
                    self.kept = Some(list(&parts.headers));
                }
                let mut request = Request::from_parts(parts, body);
                self.say(request.headers_mut(), client, trace);
                request
            }
            Now::Back(parts) => {
                let mut request = Request::from_parts(parts, body);
                request.uri_mut().clone_from(trace.uri());
                request
            }
            Now::Gone => {
                let mut request = Request::new(body);
                request.method_mut().clone_from(trace.method());
                request.uri_mut().clone_from(trace.uri());
                *request.headers_mut() = map(self.kept.as_deref().unwrap_or_default());
                self.say(request.headers_mut(), client, trace);
                request
            }
        };
        match protocol {
            Protocol::Http1 => {}
            Protocol::H2c => headers::to_http2(&mut request),
        }
        request
    }

    /// It was not sent.
    pub(super) fn back(&mut self, parts: Parts) {
        self.now = Now::Back(parts);
    }

    fn say(&self, headers: &mut HeaderMap, client: &Client, trace: &Trace) {
        let id = trace.request_id.as_ref().unwrap_or(&RequestId::Ours(0));
        headers::say(headers, client, &self.host, id);
    }
}

fn list(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn map(list: &[(HeaderName, HeaderValue)]) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(list.len() + SAID_MAX);
    for (name, value) in list {
        headers.append(name.clone(), value.clone());
    }
    headers
}
