//! One client connection from its first byte to its last.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1::UpgradeableConnection;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

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

/// Serves a connection that was just accepted, as a task of its own.
pub(crate) fn start(local: &Rc<Local>, stream: TcpStream, peer: SocketAddr, tls: bool) {
    let counted = Counted(Rc::clone(local));
    let meter = Arc::new(Meter::new(Arc::clone(local.shared.clock.coarse())));
    let http2 = Rc::new(Cell::new(false));
    let task = serve(counted, stream, peer, tls, Arc::clone(&meter), Rc::clone(&http2));
    let task = tokio::task::spawn_local(task).abort_handle();
    local.watch(meter, task, http2);
}

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
        match tokio::time::timeout(setup.limits.head_wait, proxy_protocol::read(&mut stream)).await {
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
    let Ok(accepted) = own.acceptor.accept(stream, setup.limits.handshake).await else { return };
    match accepted {
        Accepted::Challenge => {}
        Accepted::Stream { stream, alpn: Alpn::Http1, sni } => {
            let line = Line { client, meter, http2: false, sni, places };
            http1(&local, stream, line, &setup).await;
        }
        Accepted::Stream { stream, alpn: Alpn::Http2, sni } => {
            http2.set(true);
            let line = Line { client, meter, http2: true, sni, places };
            self::http2(&local, stream, line, &setup).await;
        }
    }
}

pub(crate) async fn http1<T>(local: &Rc<Local>, stream: T, line: Line, setup: &Setup)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &setup.limits;
    let io = TokioIo::new(Metered::new(stream, Arc::clone(&line.meter), HTTP1_LINGER_BYTES));
    let mut builder = http1::Builder::new();
    builder
        .half_close(false)
        .header_read_timeout(None)
        .max_headers(limits.headers)
        .max_header_size(limits.head_bytes)
        .max_buf_size(limits.head_bytes.max(BUFFER_BYTES_MIN));
    let connection = builder.serve_connection(io, service_fn(answering(local, line))).with_upgrades();
    served(local, connection, UpgradeableConnection::graceful_shutdown).await;
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
    let connection = builder.serve_connection(io, service_fn(answering(local, line)));
    served(local, connection, http2::Connection::graceful_shutdown).await;
}

/// Until the connection has ended. When the front closes it is asked to end once its requests have. How it ends is its
/// client's affair, and its requests have told what became of them.
async fn served<C: Future>(local: &Local, connection: C, end: fn(Pin<&mut C>)) {
    let mut connection = pin!(connection);
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
        connection.as_mut().poll(cx).map(drop)
    })
    .await;
}

fn answering(local: &Rc<Local>, line: Line) -> impl Fn(Request<Incoming>) -> Journey + use<> {
    let (local, line) = (Rc::clone(local), Rc::new(line));
    move |request| journey::answer(&local, &line, request)
}
