//! What HTTP/1.1 promises to clients and services that behave, at its odd corners.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::sync::watch;

use crate::common::client::{ask, connect, get};
use crate::common::upstream::{OK, Upstream};
use crate::common::wire::Wire;
use crate::common::{NAME, World, resident, soon, until};

/// Gives each request the same answer.
async fn saying(answer: &'static str) -> Upstream {
    Upstream::new(move |mut served| async move {
        while served.request().await.is_some() {
            served.send(answer).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_head_says_the_length_of_what_it_does_not_bring() {
    for framing in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
        let upstream = Upstream::new(move |mut served| async move {
            while let Some(request) = served.request().await {
                if request.first().starts_with("HEAD") {
                    served.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n")).await;
                } else {
                    served.send(OK).await;
                }
            }
        })
        .await;
        let world = World::before(&upstream, |_| {});
        let mut client = connect(world.http).await;
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = client.head().await.unwrap();
        assert_eq!(head.status(), 200);
        let told = framing.starts_with('C').then_some("1000");
        assert_eq!(head.get("content-length"), told, "{}", head.head);
        assert_eq!(client.response().await.unwrap().text(), "ok");
    }
}

#[tokio::test]
async fn answers_without_a_body_have_none_whatever_their_length_says() {
    let answers = [
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: \"x\"\r\n\r\n",
    ];
    for answer in answers {
        let upstream = saying(answer).await;
        let world = World::before(&upstream, |_| {});
        let mut client = connect(world.http).await;
        for _ in 0..3 {
            client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).await;
            let got = client.response().await.unwrap();
            assert_eq!(got.first(), answer.lines().next().unwrap());
            assert_eq!(got.get("transfer-encoding"), None, "{}", got.head);
            if got.status() == 204 {
                assert_eq!(got.get("content-length"), None, "{}", got.head);
            }
        }
        assert_eq!(upstream.take().len(), 3);
    }
}

#[tokio::test]
async fn an_answer_without_a_length_ends_with_its_connection() {
    let upstream = Upstream::new(|mut served| async move {
        served.request().await;
        served.send("HTTP/1.1 200 OK\r\n\r\nhello").await;
    })
    .await;
    let world = World::before(&upstream, |_| {});
    let got = get(world.http, "/").await;
    assert_eq!((got.text(), got.get("transfer-encoding")), ("hello", Some("chunked")));
}

#[tokio::test]
async fn interim_answers_are_left_out() {
    let upstream = saying(
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let world = World::before(&upstream, |_| {});
    let mut client = connect(world.http).await;
    for _ in 0..2 {
        client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).await;
        let first = client.head().await.unwrap();
        assert_eq!((first.status(), first.get("link")), (200, None));
        assert_eq!(client.bytes(2).await, b"ok");
    }
}

#[tokio::test]
async fn trailers_come_to_who_asks_for_them() {
    let upstream = saying(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n",
    )
    .await;
    let world = World::before(&upstream, |_| {});
    let with = ask(world.http, "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n").await;
    assert_eq!((with.text(), with.trailers.to_ascii_lowercase().as_str()), ("ok", "x-sum: 7\r\n"));
    let without = ask(world.http, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((without.text(), without.trailers.as_str()), ("ok", ""));
}

#[tokio::test]
async fn who_waits_for_100_gets_it_when_its_body_is_wanted() {
    let upstream = Upstream::recording().await;
    let world = World::new(|_| {});
    let mut client = connect(world.http).await;
    // Too large to be kept, so it is wanted only once there is somebody to give it to.
    let length = 1 << 20;
    let head =
        format!("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: {length}\r\n\r\n");
    client.send(head).await;
    until("it to be held", || (world.held() == 1).then_some(())).await;
    world.admit(1, &upstream.endpoint);
    assert_eq!(client.head().await.unwrap().first(), "HTTP/1.1 100 Continue");
    client.send(vec![b'x'; length]).await;
    assert_eq!(client.response().await.unwrap().status(), 200);
    let seen = upstream.take().remove(0);
    assert_eq!((seen.body.len(), seen.get("expect")), (length, None));
}

#[tokio::test]
async fn who_waits_for_100_and_is_refused_keeps_its_body() {
    let upstream = Upstream::recording().await;
    let world = World::before(&upstream, |config| config.limits.body_bytes = 10);
    let mut client = connect(world.http).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().status(), 413);
    assert!(upstream.take().is_empty());
}

#[tokio::test]
async fn an_answer_can_come_before_the_upload_is_done() {
    let (finish, finished) = watch::channel(false);
    let upstream = Upstream::new(move |mut served| {
        let mut finished = finished.clone();
        async move {
            while let Some(head) = served.wire.head().await {
                served.send(OK).await;
                if head.first().starts_with("POST") {
                    finished.wait_for(|it| *it).await.unwrap();
                    served.wire.rest().await;
                }
            }
        }
    })
    .await;
    let world = World::before(&upstream, |config| {
        config.limits.body_idle = Duration::from_mins(10);
        config.limits.body_rate_after = Duration::from_mins(10);
    });
    let mut uploading = connect(world.http).await;
    uploading.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    assert_eq!(uploading.response().await.unwrap().text(), "ok");
    // Nobody waits behind the one that still uploads.
    for _ in 0..3 {
        assert_eq!(soon("an answer", get(world.http, "/")).await.text(), "ok");
    }
    finish.send(true).unwrap();
}

#[tokio::test]
async fn a_refusal_in_the_middle_of_an_upload_is_read_by_its_client() {
    let upstream = Upstream::new(|mut served| async move {
        served.wire.head().await;
        served.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno").await;
        served.wire.forget().await;
    })
    .await;
    let world = World::before(&upstream, |config| config.limits.body_bytes = 8 << 20);
    // The service's own refusal, and the front's: told by its length, and found out on the way.
    let chunk = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
    for (framing, status) in [("Transfer-Encoding: chunked", 403), ("Content-Length: 1000000000", 413)] {
        let mut client = connect(world.http).await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n")).await;
        // It writes on and on before it looks, and is not cut off: it might never see why.
        for _ in 0..64 {
            client.send(&chunk).await;
        }
        assert_eq!(client.response().await.map_or(0, |it| it.status()), status, "{framing}");
    }
}

#[tokio::test]
async fn an_upload_without_an_end_has_one() {
    let upstream = Upstream::recording().await;
    let world = World::before(&upstream, |config| config.limits.body_bytes = 4 << 20);
    let mut client = connect(world.http).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(1 << 16));
    soon("the upload to be ended", async { while client.try_send(&chunk).await.is_ok() {} }).await;
    assert_eq!(client.response().await.map_or(0, |it| it.status()), 413);
    assert!(upstream.take().is_empty());
    assert_eq!(get(world.http, "/").await.status(), 200);
}

#[tokio::test]
async fn a_connection_is_used_for_as_long_as_both_sides_want() {
    let upstream = Upstream::new(|mut served| async move {
        let number = served.number;
        while served.request().await.is_some() {
            served.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}")).await;
        }
    })
    .await;
    let world = World::before(&upstream, |_| {});
    let mut client = connect(world.http).await;
    for _ in 0..50 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
        assert_eq!(client.response().await.unwrap().text(), "0");
    }
    // Ten at once, answered in their order.
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(10)).await;
    for _ in 0..10 {
        assert_eq!(client.response().await.unwrap().text(), "0");
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_what_it_understands() {
    let upstream =
        saying("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
    let world = World::before(&upstream, |_| {});
    let mut client = connect(world.http).await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let got = client.response().await.unwrap();
    assert_eq!((got.text(), got.get("transfer-encoding")), ("hello", None));
    assert_eq!(upstream.take()[0].first(), "GET / HTTP/1.1");

    let upstream = Upstream::recording().await;
    let world = World::before(&upstream, |_| {});
    let mut client = connect(world.http).await;
    for _ in 0..3 {
        client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
        let got = client.response().await.unwrap();
        assert_eq!((got.text(), got.get("connection")), ("ok", Some("keep-alive")));
    }
}

#[tokio::test]
async fn a_service_of_http_1_0_is_understood() {
    let upstream = Upstream::new(|mut served| async move {
        served.request().await;
        served.send("HTTP/1.0 200 OK\r\nServer: old\r\n\r\nhello").await;
    })
    .await;
    let world = World::before(&upstream, |_| {});
    for _ in 0..3 {
        let got = get(world.http, "/").await;
        assert_eq!((got.first(), got.text()), ("HTTP/1.1 200 OK", "hello"));
    }
}

#[tokio::test]
async fn a_service_can_listen_on_a_unix_socket() {
    let world = World::new(|_| {});
    let path = world.folder.path().join("service.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut wire = Wire::new(stream);
        while let Some(request) = wire.request().await {
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len())).await;
            wire.send(request.body).await;
        }
    });
    world.admit(1, &plimsoll_front::Endpoint::Unix(path));
    for _ in 0..3 {
        let got = ask(world.http, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
        assert_eq!(got.text(), "hello");
    }
    serving.abort();
}

#[tokio::test]
async fn events_arrive_as_they_are_sent() {
    let (more, wanted) = watch::channel(0);
    let upstream = Upstream::new(move |mut served| {
        let mut wanted = wanted.clone();
        async move {
            served.request().await;
            served
                .send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await;
            for number in 0.. {
                wanted.wait_for(|it| *it > number).await.unwrap();
                served.send(format!("9\r\ndata: {number}\n\n\r\n")).await;
            }
        }
    })
    .await;
    let world = World::before(&upstream, |_| {});
    let mut client = connect(world.http).await;
    client.send(format!("GET /events HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).await;
    assert_eq!(client.head().await.unwrap().status(), 200);
    for number in 0..5 {
        more.send(number + 1).unwrap();
        assert_eq!(client.chunk().await.unwrap(), format!("data: {number}\n\n").as_bytes());
    }
    // Its client leaves, and the service is told.
    drop(client);
    until("the stream to be over", || (world.in_flight() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_websocket_is_a_connection_both_ways() {
    let upstream = Upstream::new(|mut served| async move {
        let Some(request) = served.request().await else { return };
        if request.get("upgrade") != Some("websocket") {
            return served.send(OK).await;
        }
        served
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .await;
        loop {
            let bytes = served.wire.bytes(5).await;
            if bytes.is_empty() {
                return served.send("bye").await;
            }
            served.send(bytes).await;
        }
    })
    .await;
    let world = World::before(&upstream, |config| config.limits.connections_per_client = 1);
    let mut client = connect(world.http).await;
    client
        .send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\nfirst")
        .await;
    let agreed = client.head().await.unwrap();
    assert_eq!((agreed.status(), agreed.get("upgrade")), (101, Some("websocket")));
    assert_eq!(client.bytes(5).await, b"first");
    client.send("again").await;
    assert_eq!(client.bytes(5).await, b"again");
    until("it to take one place, like any other", || (world.front.counts().connections == 1).then_some(()))
        .await;
    assert_eq!(connect(world.http).await.rest().await, b"", "nor has its client another");
    client.io.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"bye");
    until("its place to be free", || (world.front.counts().connections == 0).then_some(())).await;
    assert_eq!(world.in_flight(), 0);
}

#[tokio::test]
async fn a_websocket_ends_with_its_service() {
    let upstream = Upstream::new(|mut served| async move {
        served.request().await;
        served
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nbye")
            .await;
    })
    .await;
    let world = World::before(&upstream, |_| {});
    let mut client = connect(world.http).await;
    client.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().status(), 101);
    assert_eq!(client.rest().await, b"bye");
    until("its place to be free", || (world.front.counts().connections == 0).then_some(())).await;
    assert_eq!(world.in_flight(), 0);
}

const LARGE: usize = 256 << 20;
/// Of this process, which is all three of client, front and service, and perhaps other tests.
const GROWTH_MAX: u64 = 64 << 20;

#[tokio::test]
async fn large_bodies_pass_through_and_stay_nowhere() {
    let upstream = Upstream::new(|mut served| async move {
        served.wire.head().await.unwrap();
        let came = served.wire.pour(LARGE).await;
        served.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\nX-Came: {came}\r\n\r\n")).await;
        let piece = vec![b'y'; 1 << 20];
        for _ in 0..LARGE >> 20 {
            served.send(&piece).await;
        }
    })
    .await;
    let world = World::before(&upstream, |config| config.limits.body_bytes = u64::MAX);
    let mut client = connect(world.http).await;
    let piece = vec![b'x'; 1 << 20];
    let before = resident();
    let mut most = 0;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n")).await;
    for _ in 0..LARGE >> 20 {
        client.send(&piece).await;
        most = most.max(resident());
    }
    assert_eq!(client.head().await.unwrap().get("x-came"), Some(LARGE.to_string().as_str()));
    for _ in 0..LARGE >> 26 {
        assert_eq!(client.pour(1 << 26).await, 1 << 26);
        most = most.max(resident());
    }
    let growth = most.saturating_sub(before);
    assert!(growth < GROWTH_MAX, "grew by {} MiB", growth >> 20);
}

#[tokio::test]
async fn chunks_pass_both_ways_however_they_are_cut() {
    const PIECES: usize = 2_000;
    let upstream = Upstream::new(|mut served| async move {
        let request = served.request().await.unwrap();
        served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        for piece in request.body.chunks(7_919) {
            served.send(format!("{:X};ext\r\n", piece.len())).await;
            served.send(piece).await;
            served.send("\r\n").await;
        }
        served.send("0\r\n\r\n").await;
    })
    .await;
    let world = World::before(&upstream, |_| {});
    let mut client = connect(world.http).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let mut sent = Vec::new();
    for number in 0..PIECES {
        let piece = number.to_string().repeat(1 + number % 400);
        client.send(format!("{:x}\r\n{piece}\r\n", piece.len())).await;
        sent.extend(piece.into_bytes());
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.response().await.unwrap().body, sent);
}

/// Until nothing more is taken for a while; how much was.
async fn fill(io: &mut tokio::net::TcpStream) -> usize {
    let piece = vec![b'x'; 1 << 20];
    let mut taken = 0;
    while let Ok(Ok(count)) = tokio::time::timeout(Duration::from_millis(300), io.write(&piece)).await {
        taken += count;
    }
    taken
}

/// Two connections' buffers in the kernel, as large as it lets them grow.
const BUFFERS_MAX: usize = 40 << 20;

#[tokio::test]
async fn a_service_that_reads_nothing_stops_its_client() {
    let upstream = Upstream::new(|mut served| async move {
        served.wire.head().await;
        std::future::pending::<()>().await;
    })
    .await;
    let world = World::before(&upstream, |config| config.limits.body_bytes = u64::MAX);
    let mut client = connect(world.http).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000000\r\n\r\n").await;
    let before = resident();
    let taken = fill(&mut client.io).await;
    assert!(taken < BUFFERS_MAX, "{} MiB were taken", taken >> 20);
    let growth = resident().saturating_sub(before);
    assert!(growth < GROWTH_MAX, "grew by {} MiB", growth >> 20);
}

#[tokio::test]
async fn a_client_that_reads_nothing_stops_its_service() {
    let (told, mut taken) = watch::channel(None);
    let upstream = Upstream::new(move |mut served| {
        let told = told.clone();
        async move {
            served.request().await;
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n").await;
            told.send(Some(fill(&mut served.wire.io).await)).unwrap();
        }
    })
    .await;
    let world = World::before(&upstream, |_| {});
    let mut client = connect(world.http).await;
    let before = resident();
    client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).await;
    let taken = soon("the service to be stopped", taken.wait_for(Option::is_some)).await.unwrap().unwrap();
    assert!(taken < BUFFERS_MAX, "{} MiB were taken", taken >> 20);
    let growth = resident().saturating_sub(before);
    assert!(growth < GROWTH_MAX, "grew by {} MiB", growth >> 20);
}
