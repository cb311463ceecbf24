//! Clients that take their time: each phase has an end, and a request beside it is served meanwhile.

use std::time::Duration;

use plimsoll_front::FrontCounts;
use plimsoll_front::config::{FrontConfig, Network};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::client::{connect, connect_tls, get};
use crate::common::upstream::{OK, Upstream};
use crate::common::wire::Wire;
use crate::common::{NAME, World, pass, soon, until};

const LIMIT: Duration = Duration::from_millis(300);
const FAR: Duration = Duration::from_mins(10);

/// Every limit far away; a test brings the one that it is about near.
fn patient(config: &mut FrontConfig) {
    let limits = &mut config.limits;
    limits.idle = FAR;
    limits.head_wait = FAR;
    limits.handshake = FAR;
    limits.body_idle = FAR;
    limits.write_stall = FAR;
}

fn world(upstream: &Upstream, near: impl FnOnce(&mut FrontConfig)) -> World {
    let world = World::with_tls(|config| {
        patient(config);
        near(config);
    });
    world.admit(1, &upstream.endpoint);
    world
}

/// The connection was ended for this reason and no other, and others are served.
async fn ended(world: &World, why: impl Fn(&FrontCounts) -> u64) {
    until("the end to be counted", || (why(&world.front.counts()) == 1).then_some(())).await;
    let counts = world.front.counts();
    let all = counts.ended_idle
        + counts.ended_head
        + counts.ended_body
        + counts.ended_body_slow
        + counts.ended_write;
    assert_eq!(all, 1, "{counts:?}");
    until("nothing to be in flight", || (world.in_flight() == 0).then_some(())).await;
    assert_eq!(get(world.http, "/").await.status(), 200);
}

/// Writes a byte now and then until nobody takes it any more.
async fn drip(wire: &mut Wire<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>, byte: &[u8]) {
    soon("the dripping to be ended", async {
        while wire.io.write_all(byte).await.is_ok() {
            pass(LIMIT / 10).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_handshake_that_does_not_come() {
    let upstream = Upstream::recording().await;
    let world = world(&upstream, |config| config.limits.handshake = LIMIT);
    let mut silent = connect(world.https()).await;
    let mut half = connect(world.https()).await;
    half.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await;
    assert_eq!(silent.rest().await, b"");
    assert_eq!(half.rest().await, b"");
    assert_eq!(get(world.http, "/").await.status(), 200);
}

#[tokio::test]
async fn a_connection_that_says_nothing() {
    let upstream = Upstream::recording().await;
    let world = world(&upstream, |config| config.limits.idle = LIMIT);
    assert_eq!(connect(world.http).await.rest().await, b"");
    ended(&world, |it| it.ended_idle).await;
}

#[tokio::test]
async fn a_connection_by_tls_that_says_nothing() {
    let upstream = Upstream::recording().await;
    for alpn in ["http/1.1", "h2"] {
        let world = world(&upstream, |config| config.limits.idle = LIMIT);
        let mut stream = connect_tls(world.https(), alpn).await;
        let mut said = Vec::new();
        let _ = soon("the end", stream.read_to_end(&mut said)).await;
        ended(&world, |it| it.ended_idle).await;
    }
}

#[tokio::test]
async fn a_proxy_header_that_does_not_come() {
    let upstream = Upstream::recording().await;
    let world = world(&upstream, |config| {
        config.limits.head_wait = LIMIT;
        config.proxy_protocol = vec![Network::parse("127.0.0.1").unwrap()];
    });
    let mut half = connect(world.http).await;
    half.send("PROXY TCP4 192.0.2.1").await;
    assert_eq!(half.rest().await, b"");
    assert_eq!(connect(world.http).await.rest().await, b"");
}

#[tokio::test]
async fn half_a_head() {
    let upstream = Upstream::recording().await;
    let world = world(&upstream, |config| config.limits.head_wait = LIMIT);
    let mut client = connect(world.http).await;
    client.send("GET / HTTP/1.1\r\nHost:").await;
    assert_eq!(client.rest().await, b"");
    ended(&world, |it| it.ended_head).await;
}

#[tokio::test]
async fn a_head_that_drips() {
    let upstream = Upstream::recording().await;
    let world = world(&upstream, |config| config.limits.head_wait = LIMIT);
    let mut client = connect(world.http).await;
    client.send("GET / HTTP/1.1\r\nX: ").await;
    drip(&mut client, b"x").await;
    ended(&world, |it| it.ended_head).await;
}

#[tokio::test]
async fn the_second_head_on_a_connection_that_drips() {
    let upstream = Upstream::recording().await;
    let world = world(&upstream, |config| config.limits.head_wait = LIMIT);
    let mut client = connect(world.http).await;
    // Its first bytes come with the request before it.
    client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\nGET / HT")).await;
    assert_eq!(client.response().await.unwrap().status(), 200);
    drip(&mut client, b"x").await;
    ended(&world, |it| it.ended_head).await;
}

#[tokio::test]
async fn a_small_body_that_stops() {
    let upstream = Upstream::recording().await;
    let world = world(&upstream, |config| config.limits.body_idle = LIMIT);
    let mut client = connect(world.http).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello").await;
    client.rest().await;
    ended(&world, |it| it.ended_body).await;
    assert_eq!(upstream.take().len(), 1, "the service is asked once a small body is here");
}

#[tokio::test]
async fn a_large_body_that_stops() {
    let upstream = Upstream::recording().await;
    let world = world(&upstream, |config| config.limits.body_idle = LIMIT);
    let mut client = connect(world.http).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    client.rest().await;
    ended(&world, |it| it.ended_body).await;
}

#[tokio::test]
async fn a_body_that_drips() {
    let upstream = Upstream::recording().await;
    let world = world(&upstream, |config| {
        config.limits.body_rate_after = LIMIT;
        config.limits.body_rate_min = 1 << 20;
    });
    for head in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
        let before = world.front.counts().ended_body_slow;
        let mut client = connect(world.http).await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n")).await;
        drip(&mut client, if head.starts_with('C') { b"x" } else { b"1\r\nx\r\n" }).await;
        until("the end to be counted", || (world.front.counts().ended_body_slow == before + 1).then_some(()))
            .await;
    }
    assert_eq!(get(world.http, "/").await.status(), 200);
}

/// Answers everything with more than any buffer on the way takes.
async fn endless() -> Upstream {
    Upstream::new(|mut served| async move {
        while let Some(request) = served.request().await {
            if request.first().starts_with("GET /endless ") {
                served.send("HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n").await;
                let piece = vec![b'x'; 64 * 1024];
                while served.wire.io.write_all(&piece).await.is_ok() {}
                return;
            }
            served.send(OK).await;
        }
    })
    .await
}

#[tokio::test]
async fn an_answer_that_is_not_taken() {
    let upstream = endless().await;
    let world = world(&upstream, |config| config.limits.write_stall = LIMIT);
    let mut client = connect(world.http).await;
    client.send(format!("GET /endless HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).await;
    ended(&world, |it| it.ended_write).await;
}

#[tokio::test]
async fn an_answer_by_tls_that_is_not_taken() {
    let upstream = endless().await;
    let world = world(&upstream, |config| config.limits.write_stall = LIMIT);
    let mut client = Wire::new(connect_tls(world.https(), "http/1.1").await);
    client.send(format!("GET /endless HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).await;
    ended(&world, |it| it.ended_write).await;
}

#[tokio::test]
async fn a_connection_kept_alive_for_nothing() {
    let upstream = Upstream::recording().await;
    let world = world(&upstream, |config| config.limits.idle = LIMIT);
    let mut client = connect(world.http).await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).await;
    assert_eq!(client.response().await.unwrap().status(), 200);
    assert_eq!(client.rest().await, b"");
    ended(&world, |it| it.ended_idle).await;
}

#[tokio::test]
async fn an_upload_that_waited_for_its_turn_is_not_slow() {
    let upstream = Upstream::recording().await;
    let world = World::new(|config| {
        config.limits.body_rate_after = LIMIT * 3;
        config.limits.body_rate_min = 100;
    });
    let mut client = connect(world.http).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    until("it to be held", || (world.held() == 1).then_some(())).await;
    pass(LIMIT * 4).await;
    world.admit(1, &upstream.endpoint);
    pass(LIMIT).await;
    client.send("0\r\n\r\n").await;
    assert_eq!(client.response().await.unwrap().text(), "ok");
}

#[tokio::test]
async fn what_waits_for_the_service_is_not_slow() {
    let upstream = Upstream::recording().await;
    let world = World::new(|config| {
        config.limits.idle = LIMIT;
        config.limits.head_wait = LIMIT;
        config.limits.body_idle = LIMIT;
    });
    let mut client = connect(world.http).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
    until("it to be held", || (world.held() == 1).then_some(())).await;
    pass(LIMIT * 4).await;
    world.admit(1, &upstream.endpoint);
    assert_eq!(client.response().await.unwrap().text(), "ok");
}
