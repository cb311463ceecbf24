//! As much of an HTTP client as the show needs.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::http::response::Parts;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::spawn_local;

/// More than a status or twenty reports ever are.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

pub(super) type Connection = SendRequest<Full<Bytes>>;

#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("cannot connect: {0}")]
    Connect(#[from] io::Error),
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    #[error("the answer broke off: {0}")]
    Answer(Box<dyn std::error::Error + Send + Sync>),
}

pub(super) async fn over_tcp(address: SocketAddr) -> Result<Connection, HttpError> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    over(stream).await
}

pub(super) async fn over_unix(path: &Path) -> Result<Connection, HttpError> {
    over(UnixStream::connect(path).await?).await
}

async fn over<S>(stream: S) -> Result<Connection, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Ends when the sender is dropped or the other side closes; how it ended is told by the exchange.
    drop(spawn_local(connection));
    Ok(sender)
}

/// Head and whole body.
pub(super) async fn exchange(
    connection: &mut Connection,
    request: Request<Full<Bytes>>,
) -> Result<(Parts, Bytes), HttpError> {
    let answer = connection.send_request(request).await?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX);
    Ok((head, body.collect().await.map_err(HttpError::Answer)?.to_bytes()))
}

pub(super) fn request(
    method: Method,
    target: &'static str,
    body: String,
    keep: bool,
) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::from(body));
    *request.method_mut() = method;
    *request.uri_mut() = hyper::Uri::from_static(target);
    let headers = request.headers_mut();
    headers.insert(header::HOST, header::HeaderValue::from_static("plimsoll-demo"));
    if !keep {
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    request
}
