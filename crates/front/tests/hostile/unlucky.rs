//! Services on their bad days: what their clients get, and how often a request is carried out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use plimsoll_core::gate::Why;
use plimsoll_front::FrontRecord;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;

use crate::common::client::{ask, connect, get};
use crate::common::upstream::{OK, Served, Upstream};
use crate::common::wire::{Message, Wire};
use crate::common::{NAME, World, pass, soon, until};

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";

fn reason(answer: &Message) -> (u16, &str) {
    (answer.status(), answer.get("plimsoll-reason").unwrap_or_default())
}

/// Ends with a reset instead of a farewell.
fn reset(served: &Served) {
    SockRef::from(&served.wire.io).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Reads a request and ends, so many times; then serves.
async fn failing(times: usize, last_words: &'static str) -> Upstream {
    Upstream::new(move |mut served| async move {
        let number = served.number;
        while served.request().await.is_some() {
            if number < times {
                return served.send(last_words).await;
            }
            served.send(OK).await;
        }
    })
    .await
}

#[tokio::test]
async fn one_that_closes_early_costs_a_safe_request_nothing() {
    for last_words in ["", "HTTP/1.1 2", "HTTP/1.1 200 OK\r\nContent-Le"] {
        let upstream = failing(1, last_words).await;
        let world = World::before(&upstream, |_| {});
        assert_eq!(get(world.http, "/").await.text(), "ok", "{last_words:?}");
        assert_eq!(upstream.take().len(), 2);
    }
}

#[tokio::test]
async fn one_that_closes_early_may_have_carried_out_what_is_not_safe() {
    for last_words in ["", "HTTP/1.1 2", "HTTP/1.1 200 OK\r\nContent-Le"] {
        let upstream = failing(1, last_words).await;
        let world = World::before(&upstream, |_| {});
        assert_eq!(reason(&ask(world.http, POST).await), (502, "may-have-run"), "{last_words:?}");
        assert_eq!(upstream.take().len(), 1);
        let reports = soon("a record of it", world.front.reports()).await;
        assert!(reports.records.iter().any(|it| matches!(it, FrontRecord::Lost(_))), "{reports:?}");
    }
}

#[tokio::test]
async fn one_that_always_closes_early_is_not_asked_for_ever() {
    let upstream = failing(usize::MAX, "").await;
    let world = World::before(&upstream, |_| {});
    assert_eq!(reason(&get(world.http, "/").await), (502, "in-flight-at-two-deaths"));
    let asked = upstream.take().len();
    assert!((2..=10).contains(&asked), "asked {asked} times");
}

/// What killed two instances is not tried on the next one. With another query it is another request.
#[tokio::test]
async fn one_like_it_is_fenced_off_afterwards_and_no_other() {
    let upstream = Upstream::new(|mut served| async move {
        while let Some(request) = served.request().await {
            if request.first().starts_with("GET /deadly?1 ") {
                return;
            }
            served.send(OK).await;
        }
    })
    .await;
    let world = World::before(&upstream, |_| {});
    assert_eq!(reason(&get(world.http, "/deadly?1").await), (502, "in-flight-at-two-deaths"));
    let reports = soon("a record of it", world.front.reports()).await;
    let is_it = |it: &FrontRecord| matches!(it, FrontRecord::Lost(it) if (it.path.as_str(), it.why) == ("/deadly", Why::Poison));
    assert!(reports.records.iter().any(is_it), "{reports:?}");
    upstream.take();
    assert_eq!(reason(&get(world.http, "/deadly?1").await), (502, "fenced"));
    let absolute = format!("GET http://{NAME}/deadly?1 HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    assert_eq!(reason(&ask(world.http, absolute).await), (502, "fenced"));
    assert!(upstream.take().is_empty());
    assert_eq!(get(world.http, "/deadly?2").await.status(), 200);
}

#[tokio::test]
async fn half_an_answer_is_never_taken_for_a_whole() {
    let halves = [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n",
    ];
    for half in halves {
        for resets in [false, true] {
            let upstream = Upstream::new(move |mut served| async move {
                served.request().await;
                served.send(half).await;
                if resets {
                    // The half arrives before the end does.
                    pass(Duration::from_millis(50)).await;
                    reset(&served);
                }
            })
            .await;
            let world = World::before(&upstream, |_| {});
            let mut client = connect(world.http).await;
            client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).await;
            assert_eq!(client.head().await.unwrap().status(), 200);
            let rest = client.rest().await;
            let ends = [b"hellohello".as_slice(), b"\r\n0\r\n\r\n"];
            assert!(!ends.iter().any(|it| rest.ends_with(it)), "{:?}", String::from_utf8_lossy(&rest));
            assert_eq!(upstream.take().len(), 1, "never again once an answer has begun");
        }
    }
}

fn with_headers(count: usize) -> String {
    format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X: y\r\n".repeat(count - 1))
}

#[tokio::test]
async fn a_hundred_headers_are_passed_on() {
    let upstream = Upstream::new(|mut served| async move {
        while served.request().await.is_some() {
            served.send(with_headers(100)).await;
        }
    })
    .await;
    let world = World::before(&upstream, |_| {});
    let got = get(world.http, "/").await;
    assert_eq!((got.status(), got.all("x").len()), (200, 99));
}

#[tokio::test]
async fn what_is_no_answer_is_not_passed_on() {
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    let many = with_headers(101);
    let answers: Vec<String> = [
        "garbage\r\n\r\n",
        "\0\0\0\0\0\0\0\0\r\n\r\n",
        "HTTP/1.1 OK\r\n\r\n",
        "HTTP/1.1 99 Low\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX y: z\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([large, many])
    .collect();
    for answer in answers {
        let text = answer.clone();
        let upstream = Upstream::new(move |mut served| {
            let answer = answer.clone();
            async move {
                while let Some(request) = served.request().await {
                    served.send(if request.first().starts_with("GET /ok ") { OK } else { &answer }).await;
                }
            }
        })
        .await;
        let world = World::before(&upstream, |_| {});
        let mut client = connect(world.http).await;
        client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).await;
        let got = client.response().await.unwrap();
        assert_eq!(reason(&got), (502, "bad-answer"), "{}", &text[..text.len().min(200)]);
        // The connection to the client goes on; the one to the service does not.
        client.send(format!("GET /ok HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).await;
        assert_eq!(client.response().await.unwrap().text(), "ok");
    }
}

#[tokio::test]
async fn what_follows_an_answer_is_not_the_next_one() {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let answers = [
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{evil}"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{evil}"),
        format!("HTTP/1.1 204 No Content\r\n\r\n{evil}"),
        format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 40\r\n\r\n{evil}"),
    ];
    for answer in answers {
        for method in ["GET", "HEAD"] {
            let answer = answer.clone();
            let upstream = Upstream::new(move |mut served| {
                let answer = answer.clone();
                async move {
                    while let Some(request) = served.request().await {
                        served.send(if request.first().contains(" /ok ") { OK } else { &answer }).await;
                    }
                }
            })
            .await;
            let world = World::before(&upstream, |_| {});
            for _ in 0..10 {
                let mut client = connect(world.http).await;
                client.send(format!("{method} / HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).await;
                assert!(client.head().await.unwrap().status() < 400);
                assert_eq!(get(world.http, "/ok").await.text(), "ok");
            }
        }
    }
}

#[tokio::test]
async fn more_than_its_length_is_cut_off() {
    let upstream = Upstream::new(|mut served| async move {
        served.request().await;
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and much more").await;
    })
    .await;
    let world = World::before(&upstream, |_| {});
    let mut client = connect(world.http).await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n")).await;
    assert!(client.rest().await.ends_with(b"\r\n\r\nok"));
}

#[tokio::test]
async fn one_that_never_answers_has_its_time() {
    for half in ["", "HTTP/1.1 200 OK\r\nX: "] {
        let upstream = Upstream::new(move |mut served| async move {
            served.request().await;
            served.send(half).await;
            std::future::pending::<()>().await;
        })
        .await;
        let world = World::before(&upstream, |config| config.limits.answer = Duration::from_millis(200));
        assert_eq!(reason(&get(world.http, "/").await), (504, "answer-timeout"));
        assert_eq!(reason(&ask(world.http, POST).await), (504, "answer-timeout"));
        assert_eq!(upstream.take().len(), 2, "asked once each");
        assert_eq!(world.in_flight(), 0);
    }
}

#[tokio::test]
async fn an_upload_takes_the_time_that_it_takes() {
    let upstream = Upstream::recording().await;
    let world = World::before(&upstream, |config| config.limits.answer = Duration::from_millis(200));
    let mut client = connect(world.http).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for _ in 0..20 {
        client.send("5\r\nhello\r\n").await;
        pass(Duration::from_millis(40)).await;
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.response().await.unwrap().text(), "ok");
}

#[tokio::test]
async fn a_full_hold_says_so() {
    let world = World::new(|config| config.gate.hold_requests = 2);
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut client = connect(world.http).await;
        client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).await;
        waiting.push(client);
    }
    until("both to be held", || (world.held() == 2).then_some(())).await;
    let refused = get(world.http, "/").await;
    assert_eq!(reason(&refused), (503, "hold-full"));
    assert!(refused.get("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
    // One leaves, and there is a place.
    waiting.pop();
    until("one to have left", || (world.held() == 1).then_some(())).await;
    let upstream = Upstream::recording().await;
    world.admit(1, &upstream.endpoint);
    assert_eq!(waiting.pop().unwrap().response().await.unwrap().text(), "ok");
}

#[tokio::test]
async fn bodies_that_are_held_have_a_bound_too() {
    let world = World::new(|config| config.gate.hold_bytes = plimsoll_core::units::Bytes(8));
    let mut first = connect(world.http).await;
    first.send(POST).await;
    until("it to be held", || (world.held() == 1).then_some(())).await;
    let refused = ask(world.http, POST).await;
    assert_eq!(reason(&refused), (503, "hold-bytes-full"));
    assert!(refused.get("retry-after").is_some());
}

#[tokio::test]
async fn who_waited_for_too_long_is_told_that_nothing_was_sent() {
    let world = World::new(|config| config.gate.hold_wait = Duration::from_millis(100));
    let refused = ask(world.http, POST).await;
    assert_eq!(reason(&refused), (503, "hold-timeout"));
    assert!(refused.get("retry-after").is_some());
}

/// How a client can leave.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    Closes,
    Resets,
    /// Ends its sending side and would still listen: taken for a leave, as nginx takes it.
    HalfCloses,
}

const ALL: [Leaves; 3] = [Leaves::Closes, Leaves::Resets, Leaves::HalfCloses];

async fn leave(how: Leaves, client: Wire<tokio::net::TcpStream>) -> Option<Wire<tokio::net::TcpStream>> {
    let mut client = client;
    match how {
        Leaves::Closes => None,
        Leaves::Resets => {
            SockRef::from(&client.io).set_linger(Some(Duration::ZERO)).unwrap();
            None
        }
        Leaves::HalfCloses => {
            client.io.shutdown().await.unwrap();
            Some(client)
        }
    }
}

const ASKS: [&str; 3] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    POST,
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
];

#[tokio::test]
async fn who_leaves_while_it_waits_frees_its_place() {
    for how in ALL {
        // What is not read cannot be seen to end: an upload that is too large to be kept frees its place with its turn.
        for asks in &ASKS[..2] {
            let world = World::new(|_| {});
            let mut client = connect(world.http).await;
            client.send(asks).await;
            until("it to be held", || (world.held() == 1).then_some(())).await;
            let _still = leave(how, client).await;
            until(&format!("{how:?} to be noticed, {asks:?}"), || (world.held() == 0).then_some(())).await;
        }
    }
}

#[tokio::test]
async fn who_leaves_during_an_upload_that_waits_frees_its_place_with_its_turn() {
    for how in ALL {
        let world = World::new(|_| {});
        let mut client = connect(world.http).await;
        client.send(ASKS[2]).await;
        until("it to be held", || (world.held() == 1).then_some(())).await;
        let _still = leave(how, client).await;
        let upstream = Upstream::recording().await;
        world.admit(1, &upstream.endpoint);
        until(&format!("{how:?} to be noticed"), || (world.in_flight() + world.held() == 0).then_some(()))
            .await;
        assert!(upstream.take().is_empty());
        assert_eq!(get(world.http, "/").await.status(), 200);
    }
}

#[tokio::test]
async fn who_leaves_while_it_is_served_frees_the_service() {
    for how in ALL {
        for asks in ASKS {
            let gone = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&gone);
            let upstream = Upstream::new(move |mut served| {
                let gone = Arc::clone(&counted);
                async move {
                    served.wire.head().await;
                    served.wire.forget().await;
                    gone.fetch_add(1, Ordering::Relaxed);
                }
            })
            .await;
            let world = World::before(&upstream, |_| {});
            let mut client = connect(world.http).await;
            client.send(asks).await;
            until("it to be in flight", || (world.in_flight() == 1).then_some(())).await;
            let _still = leave(how, client).await;
            until(&format!("{how:?} to be noticed, {asks:?}"), || (world.in_flight() == 0).then_some(()))
                .await;
            until("the service to be told", || (gone.load(Ordering::Relaxed) > 0).then_some(())).await;
            let quiet = tokio::time::timeout(Duration::from_millis(20), world.front.reports()).await;
            let lost = quiet.is_ok_and(|it| it.records.iter().any(|it| matches!(it, FrontRecord::Lost(_))));
            assert!(!lost, "no service died of this: {how:?}, {asks:?}");
        }
    }
}

#[tokio::test]
async fn who_leaves_while_it_is_answered_frees_the_service() {
    for how in ALL {
        let upstream = Upstream::new(|mut served| async move {
            served.request().await;
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
            let piece = vec![b'x'; 64 * 1024];
            while served.wire.io.write_all(&piece).await.is_ok() {}
        })
        .await;
        let world = World::before(&upstream, |_| {});
        let mut client = connect(world.http).await;
        client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).await;
        assert_eq!(client.head().await.unwrap().status(), 200);
        let _still = leave(how, client).await;
        until(&format!("{how:?} to be noticed"), || (world.in_flight() == 0).then_some(())).await;
    }
}
