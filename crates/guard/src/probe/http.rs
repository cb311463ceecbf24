//! `GET` of the health path. Any status from 200 to 399 is a yes; at most [`BODY_BYTES_MAX`] of the body are read.

use super::Answer;
use crate::endpoint::{Endpoint, Stream};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;

/// A health page that goes on for ever must not cost the guard its memory, or its time.
const BODY_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 32 * 1024;

pub(super) async fn ask(endpoint: &Endpoint, path: &str) -> Answer {
    let stream = match endpoint.connect().await {
        Ok(stream) => stream,
        Err(error) => return super::unconnected(endpoint, &error),
    };
    match exchange(stream, &endpoint.host(), path).await {
        Ok(answer) => answer,
        Err(error) => Answer::No { why: format!("GET {path} at {endpoint}: {error}") },
    }
}

async fn exchange(stream: Box<dyn Stream>, host: &str, path: &str) -> Result<Answer, hyper::Error> {
    let mut builder = http1::Builder::new();
    builder.max_headers(HEADERS_MAX).max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, "plimsoll-health")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let Ok(request) = request else { return Ok(Answer::No { why: format!("{path:?} is not a path") }) };
    let ask = async {
        let response = sender.send_request(request).await?;
        judge(response, path).await
    };
    // The connection only moves while it is polled; it is dropped, and closed, together with the answer.
    tokio::pin!(ask);
    tokio::select! {
        biased;
        answer = &mut ask => answer,
        closed = connection => {
            closed?;
            // It ended well, so the answer is in hand, or will never be.
            ask.await
        }
    }
}

async fn judge(response: Response<Incoming>, path: &str) -> Result<Answer, hyper::Error> {
    let status = response.status();
    let mut body = response.into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        read += frame?.data_ref().map_or(0, Bytes::len);
        if read > BODY_BYTES_MAX {
            break;
        }
    }
    if status.is_success() || status.is_redirection() {
        Ok(Answer::Yes)
    } else {
        Ok(Answer::No { why: format!("GET {path}: {status}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers one connection with these bytes, then keeps it open until the other side closes.
    async fn answers_with(reply: Vec<u8>) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(&reply).await;
            let _ = stream.read(&mut head).await;
        });
        Endpoint::Tcp(address)
    }

    #[tokio::test]
    async fn a_success_is_a_yes_and_an_error_status_a_no_with_its_reason() {
        let ok = answers_with(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()).await;
        assert_eq!(ask(&ok, "/health").await, Answer::Yes);
        let bad =
            answers_with(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno".to_vec()).await;
        let Answer::No { why } = ask(&bad, "/health").await else { panic!("503 is not well") };
        assert!(why.contains("503"), "{why}");
    }

    #[tokio::test]
    async fn a_body_without_end_is_cut_off() {
        let mut reply = b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n".to_vec();
        reply.resize(reply.len() + BODY_BYTES_MAX * 2, b'x');
        assert_eq!(ask(&answers_with(reply).await, "/").await, Answer::Yes);
    }

    #[tokio::test]
    async fn an_answer_that_ends_with_its_connection_is_read_all_the_same() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Endpoint::Tcp(listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nok").await;
            }
        });
        for _ in 0..50 {
            assert_eq!(ask(&address, "/").await, Answer::Yes);
        }
    }

    #[tokio::test]
    async fn rubbish_instead_of_an_answer_is_a_no() {
        let address = answers_with(b"220 mail.example ESMTP\r\n".to_vec()).await;
        assert!(matches!(ask(&address, "/").await, Answer::No { .. }));
    }
}
