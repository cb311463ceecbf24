//! Bodies on their way: requests' bodies read, kept or passed on within their bounds; responses' bodies passed on and
//! counted to their end.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use plimsoll_core::gate::Outcome;

use crate::headers;
use crate::line::Line;
use crate::meter::{Meter, Millis, Owed};
use crate::pool::Parked;
use crate::shared::Lease;
use crate::trace::Trace;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body grew past what may be sent.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("body larger than {limit_bytes} bytes")]
pub(crate) struct TooLarge {
    limit_bytes: u64,
}

/// How far an upload has come, for the one who waits for the answer to it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    frames: AtomicU32,
    /// It still comes.
    uploading: AtomicBool,
    too_large: AtomicBool,
    broken: AtomicBool,
}

impl Progress {
    /// Changes while it comes.
    pub(crate) fn frames(&self) -> u32 {
        self.frames.load(Ordering::Relaxed)
    }

    pub(crate) fn is_uploading(&self) -> bool {
        self.uploading.load(Ordering::Relaxed)
    }

    pub(crate) fn is_too_large(&self) -> bool {
        self.too_large.load(Ordering::Relaxed)
    }

    /// Its client broke it off or its framing is none: whatever failed after it, the service is not to blame.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

/// What is sent to a service.
#[derive(Debug)]
pub(crate) enum RequestBody {
    Nothing,
    /// Read already, so that it can be sent again.
    Kept(Option<Bytes>),
    /// Passed on as it comes; it comes once.
    Passing(Box<Upload>),
}

impl RequestBody {
    /// A body that is here as a whole.
    pub(crate) fn of(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Nothing } else { Self::Kept(Some(bytes)) }
    }
}

/// A body that is passed on while it comes.
#[derive(Debug)]
pub(crate) struct Upload {
    incoming: Incoming,
    meter: Arc<Meter>,
    left_bytes: u64,
    limit_bytes: u64,
    progress: Arc<Progress>,
    /// What it may come to owe, as a stream of several.
    debt: Option<u32>,
    wanted_since: Option<Millis>,
    waited: Millis,
}

impl Upload {
    pub(crate) fn new(incoming: Incoming, line: &Line, limit_bytes: u64, progress: Arc<Progress>) -> Self {
        let meter = Arc::clone(&line.meter);
        meter.body_began();
        progress.uploading.store(true, Ordering::Relaxed);
        let debt = line.http2.then(|| meter.debt_id());
        Self {
            incoming,
            meter,
            left_bytes: limit_bytes,
            limit_bytes,
            progress,
            debt,
            wanted_since: None,
            waited: 0,
        }
    }

    fn wanted(&mut self) {
        let Some(id) = self.debt else { return self.meter.body_wanted() };
        self.wanted_since.get_or_insert_with(|| self.meter.now());
        let bytes = self.limit_bytes - self.left_bytes;
        self.meter.owes(id, Owed::Body { waited: self.waited, bytes });
    }

    fn came(&mut self, bytes: usize) {
        let Some(id) = self.debt else { return self.meter.body_came(bytes) };
        if let Some(since) = self.wanted_since.take() {
            self.waited = self.waited.saturating_add(self.meter.now().wrapping_sub(since));
            self.meter.paid(id);
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Nothing => Poll::Ready(None),
            Self::Kept(bytes) => {
                Poll::Ready(bytes.take().filter(|it| !it.is_empty()).map(|it| Ok(Frame::data(it))))
            }
            Self::Passing(upload) => upload.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Kept(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Passing(upload) => upload.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Nothing => SizeHint::with_exact(0),
            Self::Kept(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Passing(upload) => upload.incoming.size_hint(),
        }
    }
}

impl Upload {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            self.wanted();
            return Poll::Pending;
        };
        self.progress.frames.fetch_add(1, Ordering::Relaxed);
        let frame = frame.transpose().inspect_err(|_| self.progress.broken.store(true, Ordering::Relaxed));
        let Some(mut frame) = frame? else {
            self.came(0);
            self.progress.uploading.store(false, Ordering::Relaxed);
            return Poll::Ready(None);
        };
        if let Some(trailers) = frame.trailers_mut() {
            headers::trailers(trailers);
        }
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        self.came(bytes);
        if self.incoming.is_end_stream() {
            self.progress.uploading.store(false, Ordering::Relaxed);
        }
        let Some(left) = self.left_bytes.checked_sub(bytes as u64) else {
            self.progress.too_large.store(true, Ordering::Relaxed);
            return Poll::Ready(Some(Err(TooLarge { limit_bytes: self.limit_bytes }.into())));
        };
        self.left_bytes = left;
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(id) = self.debt {
            self.meter.paid(id);
        }
        if self.progress.is_uploading() {
            self.meter.unfinished();
        }
    }
}

/// What is sent to a client. Dropped, the request is over.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    kind: Kind,
    /// On HTTP/2: what the client may come to owe its stream.
    debt: Option<(u32, Arc<Meter>)>,
    /// Written down when this is dropped.
    trace: Option<Box<Trace>>,
}

#[derive(Debug)]
enum Kind {
    /// Our own.
    Full(Option<Bytes>),
    /// A service's.
    Carried(Box<Carried>),
}

/// A service's body, and what hangs on its end.
pub(crate) struct Carried {
    incoming: Incoming,
    lease: Option<Lease>,
    /// The connection it came by, of use again once it has ended.
    parked: Option<Parked>,
    /// For an event stream: told when its time is over.
    end: Option<Pin<Box<dyn Future<Output = ()>>>>,
    served_at: Option<Instant>,
}

impl std::fmt::Debug for Carried {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Carried").field("lease", &self.lease).finish_non_exhaustive()
    }
}

impl Carried {
    pub(crate) fn new(incoming: Incoming, lease: Lease, parked: Option<Parked>, stream: bool) -> Self {
        let end = stream.then(|| {
            let told = Arc::clone(&lease.backend.end).notified_owned();
            let backend = Arc::clone(&lease.backend);
            let end = async move {
                tokio::pin!(told);
                // Asked after it listens, so that nothing is told in between.
                told.as_mut().enable();
                if !backend.is_ending() {
                    told.await;
                }
            };
            Box::pin(end) as Pin<Box<dyn Future<Output = ()>>>
        });
        let mut carried = Self { incoming, lease: Some(lease), parked, end, served_at: None };
        if carried.incoming.is_end_stream() {
            carried.served();
        }
        carried
    }

    fn served(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        if let Some(parked) = self.parked.take() {
            parked.put_back(&lease.backend);
        }
        let now = Instant::now();
        lease.finish_at(now, Outcome::Served);
        self.served_at = Some(now);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(end) = &mut self.end
            && end.as_mut().poll(cx).is_ready()
        {
            // A clean end, so that the client connects anew and finds the next instance.
            self.end = None;
            self.served_in_part();
            return Poll::Ready(None);
        }
        if self.lease.is_none() {
            return Poll::Ready(None);
        }
        let mut frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        match &mut frame {
            None => self.served(),
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    headers::trailers(trailers);
                }
                if self.incoming.is_end_stream() {
                    self.served();
                }
            }
            Some(Err(_)) => {
                self.parked = None;
                if let Some(lease) = self.lease.take() {
                    lease.finish(Outcome::Lost);
                }
            }
        }
        Poll::Ready(frame)
    }

    fn served_in_part(&mut self) {
        self.parked = None;
        if let Some(lease) = self.lease.take() {
            lease.finish(Outcome::Left);
        }
    }
}

impl ResponseBody {
    pub(crate) const fn full(bytes: Bytes) -> Self {
        Self { kind: Kind::Full(Some(bytes)), debt: None, trace: None }
    }

    pub(crate) const fn empty() -> Self {
        Self { kind: Kind::Full(None), debt: None, trace: None }
    }

    pub(crate) fn carried(carried: Carried) -> Self {
        Self { kind: Kind::Carried(Box::new(carried)), debt: None, trace: None }
    }

    pub(crate) fn with_trace(mut self, trace: Box<Trace>) -> Self {
        self.debt = trace.stream_meter().map(|meter| (meter.debt_id(), Arc::clone(meter)));
        self.trace = Some(trace);
        self
    }

    /// It is asked for more only when there is room for it.
    fn owes(&self, more: bool) {
        match &self.debt {
            Some((id, meter)) if more => meter.owes(*id, Owed::Window),
            Some((id, meter)) => meter.paid(*id),
            None => {}
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.owes(false);
        if let (Kind::Carried(carried), Some(trace)) = (&self.kind, &mut self.trace) {
            trace.ended = carried.served_at;
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        this.owes(false);
        let frame = match &mut this.kind {
            Kind::Full(bytes) => bytes.take().filter(|it| !it.is_empty()).map(|it| Ok(Frame::data(it))),
            Kind::Carried(carried) => ready!(carried.poll(cx)).map(|frame| frame.map_err(Into::into)),
        };
        this.owes(matches!(frame, Some(Ok(_))));
        if let Some(trace) = &mut this.trace {
            match &frame {
                Some(Ok(frame)) => trace.sent(frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(_)) => trace.cut_off(),
                None => {}
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Kind::Carried(carried) => carried.lease.is_none() && carried.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Kind::Carried(carried) => carried.incoming.size_hint(),
        }
    }
}
