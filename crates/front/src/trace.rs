//! One request from its head to its end, for the record.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Uri, Version};
use plimsoll_core::ServiceId;

use crate::access_log::Line as LogLine;
use crate::headers::RequestId;
use crate::line::Line;
use crate::local::Local;
use crate::meter::Meter;
use crate::shared::Backend;
use crate::stats::{Finished, RouteKey};

/// A request that is given up later than this was waited for.
const CALLED_OFF_WITHIN: Duration = Duration::from_secs(1);

/// Dropped, the request is over: it is counted, logged, and its connection free for the next.
pub(crate) struct Trace {
    local: Rc<Local>,
    line: Rc<Line>,
    pub(crate) began: Instant,
    method: Method,
    uri: Uri,
    version: Version,
    /// By which the service knows it.
    pub(crate) request_id: Option<RequestId>,
    /// Where it is counted, once it is known which service it is for.
    route: Option<RouteKey>,
    pub(crate) backend: Option<Arc<Backend>>,
    pub(crate) status: u16,
    pub(crate) reason: Option<&'static str>,
    pub(crate) request_bytes: u64,
    response_bytes: u64,
    pub(crate) held: Duration,
    pub(crate) attempts: u32,
    pub(crate) replays: u32,
    /// When the last of its answer went to its client; `None` while that is not known.
    pub(crate) ended: Option<Instant>,
    cut_off: bool,
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Trace")
            .field("method", &self.method)
            .field("uri", &self.uri)
            .finish_non_exhaustive()
    }
}

impl Trace {
    pub(crate) fn begin<B>(local: &Rc<Local>, line: &Rc<Line>, request: &http::Request<B>) -> Self {
        line.meter.request_began();
        Self {
            local: Rc::clone(local),
            line: Rc::clone(line),
            began: Instant::now(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            request_id: None,
            route: None,
            backend: None,
            status: 0,
            reason: None,
            request_bytes: 0,
            response_bytes: 0,
            held: Duration::ZERO,
            attempts: 0,
            replays: 0,
            ended: None,
            cut_off: false,
        }
    }

    /// It is for this service.
    pub(crate) fn goes_to(&mut self, service: ServiceId) {
        self.route = Some(self.local.begin(service, self.method.as_str(), self.uri.path()));
    }

    pub(crate) const fn sent(&mut self, bytes: usize) {
        self.response_bytes += bytes as u64;
    }

    pub(crate) const fn cut_off(&mut self) {
        self.cut_off = true;
    }

    /// Without its query, which may carry what is nobody's business.
    pub(crate) fn path(&self) -> &str {
        self.uri.path()
    }

    pub(crate) const fn method(&self) -> &Method {
        &self.method
    }

    pub(crate) const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// As it goes to the service.
    pub(crate) fn asks_for(&mut self, uri: Uri) {
        self.uri = uri;
    }

    /// Of a connection with several streams.
    pub(crate) fn stream_meter(&self) -> Option<&Arc<Meter>> {
        self.line.http2.then_some(&self.line.meter)
    }

    pub(crate) fn request_id(&self) -> String {
        self.request_id.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    pub(crate) fn client(&self) -> IpAddr {
        self.line.client.peer.ip()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.line.meter.request_ended();
        let took = self.ended.unwrap_or_else(Instant::now).saturating_duration_since(self.began);
        // No answer: the client left before there was one.
        let left = self.status == 0;
        if self.line.http2 {
            self.line.meter.stream_ended(left && took < CALLED_OFF_WITHIN);
        }
        if let Some(route) = self.route {
            self.local.count(
                route,
                &Finished {
                    status: self.status,
                    request_bytes: self.request_bytes,
                    response_bytes: self.response_bytes,
                    held: !self.held.is_zero(),
                    replayed: self.replays > 0,
                    cut_off: self.cut_off || left,
                    took,
                },
            );
        }
        self.local.log(|| LogLine {
            client: self.client(),
            method: self.method.to_string(),
            path: self.uri.path().to_owned(),
            version: self.version,
            status: self.status,
            bytes: self.response_bytes,
            took,
            held: self.held,
            attempts: self.attempts,
            replays: self.replays,
            request_id: self.request_id(),
            instance: self.backend.as_ref().map(|it| it.name.clone()),
            reason: self.reason,
            cut_off: self.cut_off || left,
        });
    }
}
