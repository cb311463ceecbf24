//! A request's head, for as often as the request is sent.

use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Request, Version};

use crate::body::RequestBody;
use crate::check::Host;
use crate::config::Protocol;
use crate::headers::{self, Client, RequestId};
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
        let parts = match std::mem::replace(&mut self.now, Now::Gone) {
            Now::Came(parts) => {
                if again {
                    self.kept = Some(list(&parts.headers));
                }
                self.said(parts, client, trace)
            }
            Now::Back(mut parts) => {
                // HTTP/2 may have put the host into it.
                parts.uri.clone_from(trace.uri());
                parts
            }
            Now::Gone => self.said(self.anew(trace), client, trace),
        };
        let mut request = Request::from_parts(parts, body);
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

    /// With what the service is told of its client.
    fn said(&self, mut parts: Parts, client: &Client, trace: &Trace) -> Parts {
        let id = trace.request_id.as_ref().unwrap_or(&RequestId::Ours(0));
        headers::say(&mut parts.headers, client, &self.host, id);
        parts
    }

    /// As it came, from what was kept of it.
    fn anew(&self, trace: &Trace) -> Parts {
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method.clone_from(trace.method());
        parts.uri.clone_from(trace.uri());
        let kept = self.kept.as_deref().unwrap_or_default();
        parts.headers.reserve(kept.len());
        for (name, value) in kept {
            parts.headers.append(name.clone(), value.clone());
        }
        parts
    }
}

fn list(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}
