//! One client connection from its first byte to its last.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1::UpgradeableConnection;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::config::Limits;
use crate::headers::Client;
use crate::joined::Joined;
use crate::journey::{self, Journey};
use crate::line::Line;
use crate::local::{Local, LocalExecutor};
use crate::meter::{Meter, Metered};
use crate::proxy_protocol;
use crate::setup::Setup;
use crate::tls::{Accepted, Alpn};

/// hyper's smallest; a head larger than it grows it, up to the limit.
const BUFFER_BYTES_MIN: usize = 8 * 1024;
/// What hyper takes by itself.
const HYPER_HEADERS_MAX: usize = 100;
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG_WITHIN: Duration = Duration::from_secs(10);
/// What one HTTP/2 connection may have us buffer for it, in bytes.
const H2_SEND_BYTES: usize = 64 * 1024;
const H2_STREAM_WINDOW: u32 = 256 * 1024;
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;

/// An upload that was refused is read so far to its end, as its client may look for the answer only then.
const HTTP1_LINGER_BYTES: usize = 128 * 1024 * 1024;
/// Here a stream is refused by itself; what comes after a connection's last word is a flood or what was on its way.
const H2_LINGER_BYTES: usize = 256 * 1024;

/// Counted while it lives.
#[derive(Debug)]
pub(crate) struct Counted(pub(crate) Rc<Local>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.shared.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.shared.connection_closed.notify_one();
    }
}

/// At rest while it lives.
struct Resting<'a>(&'a AtomicU32);

impl<'a> Resting<'a> {
    fn begin(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Resting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a connection that was just accepted, as a task of its own.
pub(crate) fn start(local: &Rc<Local>, stream: TcpStream, peer: SocketAddr, tls: bool) {
    let counted = Counted(Rc::clone(local));
    let meter = Arc::new(Meter::new(Arc::clone(local.shared.clock.coarse())));
    let http2 = Rc::new(Cell::new(false));
    let task = serve(counted, stream, peer, tls, Arc::clone(&meter), Rc::clone(&http2));
    let task = tokio::task::spawn_local(task).abort_handle();
    local.watch(meter, task, http2);
}

/// What few connections go through, or for a short time, is in a box, so that an idle one does not carry room for it.
async fn serve(
    counted: Counted,
    mut stream: TcpStream,
    mut peer: SocketAddr,
    tls: bool,
    meter: Arc<Meter>,
    http2: Rc<Cell<bool>>,
) {
    let local = Rc::clone(&counted.0);
    let setup = local.setup();
    let trusted = setup.trusted.iter().any(|it| it.contains(peer.ip()));
    if setup.proxy_protocol.iter().any(|it| it.contains(peer.ip())) {
        let header = proxy_protocol::read(&mut stream);
        match Box::pin(tokio::time::timeout(setup.limits.head_wait, header)).await {
            Ok(Ok(client)) => peer = client.unwrap_or(peer),
            // Whoever is listed and says nothing sensible has nothing to say.
            Ok(Err(_)) | Err(_) => return,
        }
    }
    let most = setup.limits.connections_per_client;
    let Some(of_client) = local.shared.count_client(peer.ip().to_canonical(), most) else { return };
    let client = Client::new(peer, trusted, tls);
    let places = (counted, of_client);
    if !tls {
        let line = Line { client, meter, http2: false, sni: None, places };
        http1(&local, Joined(stream), line, &setup).await;
        return;
    }
    let Some(own) = &local.tls else { return };
    // Why a handshake failed is between the client and its own log.
    let accepting = own.acceptor.accept(stream, setup.limits.handshake);
    let Ok(accepted) = Box::pin(accepting).await else { return };
    match accepted {
        Accepted::Challenge => {}
        Accepted::Stream { stream, alpn: Alpn::Http1, sni } => {
            let line = Line { client, meter, http2: false, sni, places };
            Box::pin(http1(&local, stream, line, &setup)).await;
        }
        Accepted::Stream { stream, alpn: Alpn::Http2, sni } => {
            http2.set(true);
            let line = Line { client, meter, http2: true, sni, places };
            Box::pin(self::http2(&local, stream, line, &setup)).await;
        }
    }
}

pub(crate) async fn http1<T>(local: &Rc<Local>, stream: T, line: Line, setup: &Setup)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let meter = Arc::clone(&line.meter);
    let mut io = Metered::new(stream, Arc::clone(&meter), HTTP1_LINGER_BYTES);
    let mut service = service_fn(answering(local, line));
    while rest(local, &mut io).await {
        let connection = http1_builder(&setup.limits).serve_connection(TokioIo::new(io), service);
        let mut connection = Box::new(connection.with_upgrades());
        let end = UpgradeableConnection::graceful_shutdown;
        let may_rest = |cx: &Context<'_>| meter.may_rest(cx.waker());
        let Served::Idle = served(local, Pin::new(&mut *connection), end, may_rest).await else { return };
        let Some(parts) = connection.into_parts() else { return };
        io = parts.io.into_inner();
        io.unread(parts.read_buf.into());
        service = parts.service;
    }
    let _ = poll_fn(|cx| Pin::new(&mut io).poll_shutdown(cx)).await;
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .half_close(false)
        .header_read_timeout(None)
        .max_header_size(limits.head_bytes)
        .max_buf_size(limits.head_bytes.max(BUFFER_BYTES_MIN));
    // A number that it is told has it fill room for so many before it reads a head.
    if limits.headers != HYPER_HEADERS_MAX {
        builder.max_headers(limits.headers);
    }
    builder
}

/// Waits for a request's first bytes with nothing but the socket: hyper's buffers for a connection take more than ten
/// thousand bytes, and most connections of a busy front are silent. `false` when it is over.
async fn rest<T: AsyncRead + Unpin>(local: &Local, io: &mut Metered<T>) -> bool {
    let _resting = Resting::begin(&local.shared.resting);
    let mut closing = pin!(local.closing.notified());
    poll_fn(|cx| {
        if let Poll::Ready(more) = io.poll_unread(cx) {
            return Poll::Ready(more);
        }
        let _ = closing.as_mut().poll(cx);
        if local.is_closing() { Poll::Ready(false) } else { Poll::Pending }
    })
    .await
}

pub(crate) async fn http2<T>(local: &Rc<Local>, stream: T, line: Line, setup: &Setup)
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let limits = &setup.limits;
    let io = TokioIo::new(Metered::new(stream, Arc::clone(&line.meter), H2_LINGER_BYTES));
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(H2_SEND_BYTES)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN);
    let connection = pin!(builder.serve_connection(io, service_fn(answering(local, line))));
    served(local, connection, http2::Connection::graceful_shutdown, |_| false).await;
}

/// Why a connection is served no more.
enum Served {
    Ended,
    /// It has nothing to do, and may rest.
    Idle,
}

/// Until the connection has ended, or `may_rest`. When the front closes it is asked to end once its requests have. How
/// it ends is its client's affair, and its requests have told what became of them.
async fn served<C: Future>(
    local: &Local,
    mut connection: Pin<&mut C>,
    end: fn(Pin<&mut C>),
    may_rest: impl Fn(&Context<'_>) -> bool,
) -> Served {
    let mut closing = pin!(local.closing.notified());
    let (mut listens, mut asked) = (false, false);
    poll_fn(|cx| {
        if !listens {
            // Once is enough: it wakes this task, whatever it waits for by then.
            listens = true;
            let _ = closing.as_mut().poll(cx);
        }
        if !asked && local.is_closing() {
            asked = true;
            end(connection.as_mut());
        }
        match connection.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(Served::Ended),
            Poll::Pending if may_rest(cx) => Poll::Ready(Served::Idle),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn answering(local: &Rc<Local>, line: Line) -> impl Fn(Request<Incoming>) -> Journey + use<> {
    let (local, line) = (Rc::clone(local), Rc::new(line));
    move |request| journey::answer(&local, &line, request)
}
