//! Connections to instances, one thread's own: kept while they are fresh, never longer than the other side keeps them.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderValue;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use plimsoll_core::InstanceId;
use tokio::net::{TcpStream, UnixStream};

use crate::body::RequestBody;
use crate::clock::Clock;
use crate::config::Protocol;
use crate::endpoint::Endpoint;
use crate::joined::Joined;
use crate::local::LocalExecutor;
use crate::shared::Backend;

/// Idle connections to one instance that one thread keeps.
const IDLE_MAX: usize = 128;
/// Kept this long where the service does not say; Node's own limit is 5 s.
const IDLE_DEFAULT: Duration = Duration::from_secs(4);
/// Let go of this much before the service would.
const IDLE_MARGIN: Duration = Duration::from_secs(1);
const IDLE_LONGEST: Duration = Duration::from_mins(1);
/// What may not be sent twice goes only by a connection that was in use this recently, or by a new one.
const FRESH: Duration = Duration::from_secs(1);
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A connection that can carry a request.
#[derive(Debug)]
pub(crate) enum Link {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>),
}

impl Link {
    pub(crate) fn is_ready(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_ready(),
            Self::Http2(sender) => sender.is_ready(),
        }
    }

    /// Until it can take a request; false when it has ended.
    pub(crate) async fn ready(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }

    /// A request that was not sent comes back with the error.
    pub(crate) fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> + use<> {
        match self {
            Self::Http1(sender) => Sending::Http1 { answer: sender.try_send_request(request) },
            // Its future is larger, and its requests are fewer.
            Self::Http2(sender) => Sending::Http2 { answer: Box::pin(sender.try_send_request(request)) },
        }
    }
}

pin_project_lite::pin_project! {
    /// An answer that is waited for.
    #[project = SendingProjected]
    enum Sending<One, Two> {
        Http1 { #[pin] answer: One },
        Http2 { answer: Pin<Box<Two>> },
    }
}

impl<One: Future, Two: Future<Output = One::Output>> Future for Sending<One, Two> {
    type Output = One::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            SendingProjected::Http1 { answer } => answer.poll(cx),
            SendingProjected::Http2 { answer } => answer.as_mut().poll(cx),
        }
    }
}

#[derive(Debug)]
struct Idle {
    link: Link,
    since: u32,
    keep: u32,
}

#[derive(Debug)]
struct Rack {
    id: InstanceId,
    idle: Vec<Idle>,
    /// One for all requests, where the protocol allows that.
    shared: Option<http2::SendRequest<RequestBody>>,
}

#[derive(Debug)]
pub(crate) struct Pool {
    racks: RefCell<Vec<Rack>>,
    clock: Clock,
}

impl Pool {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { racks: RefCell::new(Vec::new()), clock }
    }

    fn now(&self) -> u32 {
        self.clock.coarse().load(Relaxed)
    }

    /// The one that was used last. `only_fresh`: of no use is one that has been idle for long.
    pub(crate) fn take(&self, id: InstanceId, only_fresh: bool) -> Option<Link> {
        let now = self.now();
        let mut all = self.racks.borrow_mut();
        let rack = all.iter_mut().find(|rack| rack.id == id)?;
        if let Some(shared) = &rack.shared {
            if !shared.is_closed() {
                return Some(Link::Http2(shared.clone()));
            }
            rack.shared = None;
        }
        while let Some(idle) = rack.idle.pop() {
            let age = now.wrapping_sub(idle.since);
            if idle.link.is_closed() || age >= idle.keep {
                continue;
            }
            if only_fresh && age >= millis(FRESH) {
                // Those below it are older still.
                rack.idle.push(idle);
                return None;
            }
            return Some(idle.link);
        }
        None
    }

    fn put(&self, backend: &Backend, link: Link, keep: Duration) {
        if link.is_closed() || backend.is_withdrawn() {
            return;
        }
        let since = self.now();
        let mut all = self.racks.borrow_mut();
        let index = all.iter().position(|rack| rack.id == backend.id).unwrap_or_else(|| {
            all.push(Rack { id: backend.id, idle: Vec::new(), shared: None });
            all.len() - 1
        });
        let rack = &mut all[index];
        match link {
            // It is on the rack already.
            Link::Http2(_) => {}
            Link::Http1(_) if rack.idle.len() >= IDLE_MAX => {}
            Link::Http1(_) => rack.idle.push(Idle { link, since, keep: millis(keep) }),
        }
    }

    fn share(&self, backend: &Backend, sender: &http2::SendRequest<RequestBody>) {
        let mut all = self.racks.borrow_mut();
        match all.iter_mut().find(|rack| rack.id == backend.id) {
            Some(rack) => rack.shared = Some(sender.clone()),
            None => {
                all.push(Rack { id: backend.id, idle: Vec::new(), shared: Some(sender.clone()) });
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.racks.borrow().is_empty()
    }

    /// Lets go of what is too old.
    pub(crate) fn sweep(&self) {
        let now = self.now();
        let mut all = self.racks.borrow_mut();
        for rack in all.iter_mut() {
            rack.idle.retain(|idle| !idle.link.is_closed() && now.wrapping_sub(idle.since) < idle.keep);
            if rack.shared.as_ref().is_some_and(http2::SendRequest::is_closed) {
                rack.shared = None;
            }
        }
        all.retain(|rack| !rack.idle.is_empty() || rack.shared.is_some());
    }

    /// Lets go of everything that goes to instances which get no new requests, so that they can end.
    pub(crate) fn drop_others(&self, is_wanted: impl Fn(InstanceId) -> bool) {
        self.racks.borrow_mut().retain(|rack| is_wanted(rack.id));
    }

    /// A new connection.
    pub(crate) async fn connect(
        &self,
        backend: &Arc<Backend>,
        patience: Duration,
        upgrades: bool,
    ) -> io::Result<Link> {
        let connecting = async {
            match &backend.endpoint {
                Endpoint::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    self.handshake(backend, TokioIo::new(Joined(stream)), upgrades).await
                }
                Endpoint::Unix(path) => {
                    let stream = UnixStream::connect(path).await?;
                    self.handshake(backend, TokioIo::new(Joined(stream)), upgrades).await
                }
            }
        };
        match tokio::time::timeout(patience, connecting).await {
            Ok(link) => link,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    async fn handshake<T>(&self, backend: &Backend, io: TokioIo<T>, upgrades: bool) -> io::Result<Link>
    where
        T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        match backend.protocol {
            Protocol::Http1 => {
                let mut builder = http1::Builder::new();
                builder.max_header_size(HEAD_BYTES_MAX);
                let (sender, connection) = builder.handshake(io).await.map_err(io::Error::other)?;
                // How it ends, its requests are told.
                if upgrades {
                    tokio::task::spawn_local(async move { drop(connection.with_upgrades().await) });
                } else {
                    tokio::task::spawn_local(async move { drop(connection.await) });
                }
                Ok(Link::Http1(sender))
            }
            Protocol::H2c => {
                let builder = http2::Builder::new(LocalExecutor);
                let (sender, connection) = builder.handshake(io).await.map_err(io::Error::other)?;
                tokio::task::spawn_local(async move { drop(connection.await) });
                self.share(backend, &sender);
                Ok(Link::Http2(sender))
            }
        }
    }
}

/// A connection that goes back to its pool once its response has ended.
#[derive(Debug)]
pub(crate) struct Parked {
    pool: Rc<Pool>,
    link: Link,
    keep: Duration,
}

impl Parked {
    pub(crate) fn new(pool: &Rc<Pool>, link: Link, keep: Duration) -> Self {
        Self { pool: Rc::clone(pool), link, keep }
    }

    pub(crate) fn put_back(self, backend: &Backend) {
        self.pool.put(backend, self.link, self.keep);
    }
}

/// How long the service keeps an idle connection, less a margin: `Keep-Alive: timeout=5`. `None` where it says that the
/// connection ends.
pub(crate) fn kept(connection: Option<&HeaderValue>, keep_alive: Option<&HeaderValue>) -> Option<Duration> {
    if connection.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"close")) {
        return None;
    }
    let Some(told) = keep_alive.and_then(|it| it.to_str().ok()) else { return Some(IDLE_DEFAULT) };
    let timeout = told.split(',').find_map(|part| part.trim().strip_prefix("timeout=")?.parse::<u64>().ok());
    let span =
        timeout.map_or(IDLE_DEFAULT, |seconds| Duration::from_secs(seconds).saturating_sub(IDLE_MARGIN));
    (!span.is_zero()).then(|| span.min(IDLE_LONGEST))
}

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_let_go_before_the_service_lets_go_of_it() {
        let told = |keep_alive| kept(None, Some(&HeaderValue::from_static(keep_alive)));
        assert_eq!(told("timeout=5"), Some(Duration::from_secs(4)));
        assert_eq!(told("timeout=5, max=100"), Some(Duration::from_secs(4)));
        assert_eq!(told("timeout=1"), None);
        assert_eq!(told("timeout=3600"), Some(IDLE_LONGEST));
        assert_eq!(kept(Some(&HeaderValue::from_static("Close")), None), None);
        assert_eq!(kept(Some(&HeaderValue::from_static("keep-alive")), None), Some(IDLE_DEFAULT));
        assert_eq!(kept(None, None), Some(IDLE_DEFAULT));
    }
}
