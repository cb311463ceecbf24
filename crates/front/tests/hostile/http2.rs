//! HTTP/2: to clients by TLS, to services in the clear.

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response, StatusCode, Version};
use plimsoll_front::config::Protocol;
use plimsoll_front::{Endpoint, FrontRecord};
use tokio::net::TcpListener;

use crate::common::client::{ask, connect_tls};
use crate::common::upstream::{OK, Upstream};
use crate::common::{NAME, World, loopback, soon, until};

pub(crate) async fn client(world: &World) -> SendRequest<Bytes> {
    let stream = connect_tls(world.https(), "h2").await;
    let (sender, connection) = soon("a handshake", h2::client::handshake(stream)).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    sender
}

pub(crate) fn before(upstream: &Upstream) -> World {
    let world = World::with_tls(|_| {});
    world.admit(1, &upstream.endpoint);
    world
}

fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("https://{NAME}{path}")).version(Version::HTTP_2)
}

pub(crate) async fn send(
    client: &SendRequest<Bytes>,
    request: Request<()>,
    end: bool,
) -> (ResponseFuture, SendStream<Bytes>) {
    let mut ready = soon("room for a stream", client.clone().ready()).await.unwrap();
    ready.send_request(request, end).unwrap()
}

async fn ask_h2(client: &SendRequest<Bytes>, request: Request<()>) -> Response<RecvStream> {
    let (response, _) = send(client, request, true).await;
    soon("an answer", response).await.unwrap()
}

/// The whole body, or how it was broken off.
async fn body(response: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(piece) = soon("a piece of a body", response.data()).await {
        let piece = piece?;
        response.flow_control().release_capacity(piece.len())?;
        all.extend(piece);
    }
    Ok(all)
}

#[tokio::test]
async fn many_requests_share_a_connection() {
    let upstream = Upstream::recording().await;
    let world = before(&upstream);
    let client = client(&world).await;
    let mut waiting = Vec::new();
    for number in 0..50 {
        waiting.push(send(&client, request("GET", &format!("/{number}")).body(()).unwrap(), true).await.0);
    }
    for response in waiting {
        let mut response = soon("an answer", response).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(body(response.body_mut()).await.unwrap(), b"ok");
    }
    let seen = upstream.take();
    assert_eq!(seen.len(), 50);
    assert_eq!((seen[0].all("host"), seen[0].all("x-forwarded-proto")), (vec![NAME], vec!["https"]));
    assert_eq!(world.front.counts().connections, 1);
}

#[tokio::test]
async fn cookies_in_pieces_arrive_as_one() {
    let upstream = Upstream::recording().await;
    let world = before(&upstream);
    let asks = request("GET", "/").header("cookie", "a=1").header("cookie", "b=2").body(()).unwrap();
    assert_eq!(ask_h2(&client(&world).await, asks).await.status(), 200);
    assert_eq!(upstream.take()[0].all("cookie"), ["a=1; b=2"]);
}

#[tokio::test]
async fn a_host_that_differs_is_refused() {
    let upstream = Upstream::recording().await;
    let world = before(&upstream);
    let client = client(&world).await;
    let asks = request("GET", "/").header("host", "other.test").body(()).unwrap();
    assert_eq!(ask_h2(&client, asks).await.status(), 400);
    let asks = Request::builder().uri("https://other.test/").version(Version::HTTP_2).body(()).unwrap();
    assert_eq!(ask_h2(&client, asks).await.status(), StatusCode::MISDIRECTED_REQUEST);
    assert!(upstream.take().is_empty());
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_it_says_does_not_arrive() {
    let upstream = Upstream::recording().await;
    let world = before(&upstream);
    let client = client(&world).await;
    for (length, sent) in [("5", "hello!"), ("5", "hell"), ("100000", "hell")] {
        let asks = request("POST", "/").header("content-length", length).body(()).unwrap();
        let (response, mut stream) = send(&client, asks, false).await;
        stream.send_data(Bytes::from(sent), true).unwrap();
        let refused = soon("an answer", response).await;
        assert!(refused.is_err() || refused.unwrap().status() == 400, "{length} {sent}");
        until("nothing to be in flight", || (world.in_flight() == 0).then_some(())).await;
    }
    assert!(upstream.take().is_empty());
    assert_eq!(ask_h2(&client, request("GET", "/").body(()).unwrap()).await.status(), 200);
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let upstream = Upstream::new(|mut served| async move {
        while let Some(request) = served.request().await {
            let answer = match request.first().split(' ').nth(1).unwrap() {
                "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
            };
            served.send(answer).await;
        }
    })
    .await;
    let world = before(&upstream);
    let client = client(&world).await;
    for (method, path, status) in [("GET", "/204", 204), ("GET", "/304", 304), ("HEAD", "/", 200)] {
        let mut response = ask_h2(&client, request(method, path).body(()).unwrap()).await;
        assert_eq!(response.status(), status);
        assert_eq!(body(response.body_mut()).await.unwrap(), b"");
    }
}

#[tokio::test]
async fn bodies_and_trailers_pass_both_ways() {
    const SIZE: usize = 4 << 20;
    let upstream = Upstream::new(|mut served| async move {
        let request = served.request().await.unwrap();
        let sum = request.trailers.trim().to_ascii_lowercase();
        served
            .send("HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned())
            .await;
        served.send(format!("{:x}\r\n", request.body.len())).await;
        served.send(&request.body).await;
        served.send(format!("\r\n0\r\nX-Sum: {sum}\r\n\r\n")).await;
    })
    .await;
    let world = before(&upstream);
    let client = client(&world).await;
    let asks = request("POST", "/").header("trailer", "x-sum").header("te", "trailers").body(()).unwrap();
    let (response, mut stream) = send(&client, asks, false).await;
    let upload = async {
        let mut left = SIZE;
        while left > 0 {
            stream.reserve_capacity(left.min(1 << 16));
            let room =
                soon("room", std::future::poll_fn(|cx| stream.poll_capacity(cx))).await.unwrap().unwrap();
            let piece = room.min(left);
            stream.send_data(Bytes::from(vec![b'x'; piece]), false).unwrap();
            left -= piece;
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        stream.send_trailers(trailers).unwrap();
    };
    let ((), response) = tokio::join!(upload, soon("an answer", response));
    let mut response = response.unwrap();
    assert_eq!(body(response.body_mut()).await.unwrap().len(), SIZE);
    let trailers = response.body_mut().trailers().await.unwrap().unwrap();
    assert_eq!(trailers["x-sum"], "x-sum: 7");
}

#[tokio::test]
async fn half_an_answer_ends_its_stream_with_an_error() {
    for half in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let upstream = Upstream::new(move |mut served| async move {
            while let Some(request) = served.request().await {
                if request.first().starts_with("GET /ok ") {
                    served.send(OK).await;
                } else {
                    return served.send(half).await;
                }
            }
        })
        .await;
        let world = before(&upstream);
        let client = client(&world).await;
        let mut response = ask_h2(&client, request("GET", "/").body(()).unwrap()).await;
        assert!(body(response.body_mut()).await.is_err());
        // The others on the connection are none the worse for it.
        assert_eq!(ask_h2(&client, request("GET", "/ok").body(()).unwrap()).await.status(), 200);
    }
}

#[tokio::test]
async fn an_upload_that_is_called_off_is_nobodys_death() {
    let upstream = Upstream::recording().await;
    let world = before(&upstream);
    let client = client(&world).await;
    for _ in 0..5 {
        let (_response, mut stream) = send(&client, request("POST", "/").body(()).unwrap(), false).await;
        stream.send_data(Bytes::from("hello"), false).unwrap();
        until("it to be in flight", || (world.in_flight() == 1).then_some(())).await;
        stream.send_reset(h2::Reason::CANCEL);
        until("it to be over", || (world.in_flight() == 0).then_some(())).await;
    }
    assert_eq!(ask_h2(&client, request("GET", "/").body(()).unwrap()).await.status(), 200);
    let reports = tokio::time::timeout(std::time::Duration::from_millis(20), world.front.reports()).await;
    let lost = reports.is_ok_and(|it| it.records.iter().any(|it| matches!(it, FrontRecord::Lost(_))));
    assert!(!lost);
}

/// A service that speaks HTTP/2 in the clear, and gives each body and its trailers back.
async fn h2c() -> (Endpoint, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let endpoint = Endpoint::Tcp(listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((mut request, mut respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        let echo = body(request.body_mut()).await.unwrap();
                        let trailers = request.body_mut().trailers().await.unwrap();
                        let uri = request.uri();
                        let response = Response::builder()
                            .header("x-authority", uri.authority().map_or("none", |it| it.as_str()))
                            .header("x-path", uri.path())
                            .body(())
                            .unwrap();
                        let mut stream = respond.send_response(response, false).unwrap();
                        stream.send_data(echo.into(), trailers.is_none()).unwrap();
                        if let Some(trailers) = trailers {
                            stream.send_trailers(trailers).unwrap();
                        }
                    });
                }
            });
        }
    });
    (endpoint, serving)
}

#[tokio::test]
async fn a_service_can_speak_http_2() {
    let (endpoint, serving) = h2c().await;
    let world = World::with_tls(|config| config.services[0].protocol = Protocol::H2c);
    world.admit(1, &endpoint);
    let asks = "POST /path?q HTTP/1.1\r\nHost: a:81\r\nTE: trailers\r\nTrailer: X-Sum\r\n\
                Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n";
    let got = ask(world.http, asks).await;
    assert_eq!((got.status(), got.text()), (200, "hello"), "{}", got.head);
    assert_eq!((got.get("x-authority"), got.get("x-path")), (Some("a:81"), Some("/path")));
    let client = client(&world).await;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let (response, mut stream) = send(&client, request("POST", "/").body(()).unwrap(), false).await;
        stream.send_data(Bytes::from("hello"), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        stream.send_trailers(trailers).unwrap();
        waiting.push(response);
    }
    for response in waiting {
        let mut response = soon("an answer", response).await.unwrap();
        assert_eq!(body(response.body_mut()).await.unwrap(), b"hello");
        assert_eq!(response.body_mut().trailers().await.unwrap().unwrap()["x-sum"], "7");
    }
    serving.abort();
}
