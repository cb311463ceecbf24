//! A proxy of hyper's connections and nothing else: no hold, no replay, no limits, no statistics. `cargo xtask bench front
//! own` has the front stand beside it, to see what all that costs.
//!
//! `bare LISTEN UPSTREAM`, each `ADDRESS:PORT`; one thread, keep-alive on both sides; SIGTERM ends it.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::header::CONNECTION;
use http::{HeaderName, HeaderValue, Request, Response, Version};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self as client, SendRequest};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{SignalKind, signal};

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Connections to the upstream that nobody uses.
type Pool = Rc<RefCell<Vec<SendRequest<Incoming>>>>;

fn main() -> Result<(), Failure> {
    let mut addresses = std::env::args().skip(1).map(|it| it.parse::<SocketAddr>());
    let (Some(listen), Some(upstream)) = (addresses.next().transpose()?, addresses.next().transpose()?)
    else {
        return Err("usage: bare LISTEN UPSTREAM".into());
    };
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    // Ended by a signal, it would keep its counts to itself when it is trained.
    runtime.block_on(async {
        let mut ended = signal(SignalKind::terminate())?;
        tokio::select! {
            failed = serve(listen, upstream) => failed,
            _ = ended.recv() => Ok(()),
        }
    })
}

async fn serve(listen: SocketAddr, upstream: SocketAddr) -> Result<(), Failure> {
    let listener = TcpListener::bind(listen).await?;
    let pool = Pool::default();
    loop {
        let (stream, peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let pool = Rc::clone(&pool);
        let service = service_fn(move |request| pass(Rc::clone(&pool), upstream, peer, request));
        tokio::task::spawn_local(async move {
            // How it ends is its client's affair.
            let _ = server::Builder::new()
                .header_read_timeout(None)
                .half_close(false)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn pass(
    pool: Pool,
    upstream: SocketAddr,
    peer: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response<Carried>, Failure> {
    let headers = request.headers_mut();
    headers.remove(CONNECTION);
    headers
        .insert(HeaderName::from_static("x-forwarded-for"), HeaderValue::from_str(&peer.ip().to_string())?);
    headers.insert(HeaderName::from_static("x-forwarded-proto"), HeaderValue::from_static("http"));
    let pooled = pool.borrow_mut().pop();
    let mut link = match pooled {
        Some(link) if !link.is_closed() => link,
        Some(_) | None => connect(upstream).await?,
    };
    link.ready().await?;
    let mut response = link.send_request(request).await?;
    response.headers_mut().remove(CONNECTION);
    *response.version_mut() = Version::HTTP_11;
    Ok(response.map(|incoming| Carried { incoming, parked: Some((pool, link)) }))
}

async fn connect(upstream: SocketAddr) -> Result<SendRequest<Incoming>, Failure> {
    let stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let (link, connection) = client::Builder::new().handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(async move { drop(connection.await) });
    Ok(link)
}

/// An answer whose connection goes back to the pool with its end.
struct Carried {
    incoming: Incoming,
    parked: Option<(Pool, SendRequest<Incoming>)>,
}

impl Body for Carried {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        let ended = frame.is_none() || self.incoming.is_end_stream();
        if ended && let Some((pool, link)) = self.parked.take() {
            pool.borrow_mut().push(link);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.parked.is_none() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
