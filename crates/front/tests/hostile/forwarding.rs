//! What a service is told about its clients, what goes no further, and what is written down.

use std::path::Path;

use plimsoll_front::config::{AccessLogConfig, AccessLogStyle, Network};

use crate::common::client::{ask, connect, get};
use crate::common::upstream::{OK, Upstream};
use crate::common::{NAME, World, pass, until};

fn here() -> Vec<Network> {
    vec![Network::parse("127.0.0.1").unwrap()]
}

const CLAIMS: &str = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\n\
                      Forwarded: for=203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\nX-Request-Id: theirs\r\n";

#[tokio::test]
async fn a_stranger_is_not_believed() {
    let upstream = Upstream::recording().await;
    let world = World::before(&upstream, |_| {});
    ask(world.http, format!("GET / HTTP/1.1\r\nHost: a\r\n{CLAIMS}\r\n")).await;
    let seen = upstream.take().remove(0);
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.all("x-forwarded-host"), ["a"]);
    assert!(seen.all("forwarded").is_empty() && seen.all("x-real-ip").is_empty(), "{}", seen.head);
    assert_eq!(seen.all("x-request-id"), ["theirs"]);
}

#[tokio::test]
async fn a_listed_peer_is_believed_and_added() {
    let upstream = Upstream::recording().await;
    let world = World::before(&upstream, |config| config.trusted = here());
    ask(world.http, format!("GET / HTTP/1.1\r\nHost: a\r\n{CLAIMS}\r\n")).await;
    let seen = upstream.take().remove(0);
    assert_eq!(seen.all("x-forwarded-for"), ["203.0.113.9, 127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
    assert_eq!(seen.all("forwarded"), ["for=203.0.113.9, for=127.0.0.1"]);
}

#[tokio::test]
async fn every_request_has_an_id_of_its_own() {
    let upstream = Upstream::recording().await;
    let world = World::before(&upstream, |_| {});
    for _ in 0..20 {
        get(world.http, "/").await;
    }
    let seen = upstream.take();
    let mut ids: Vec<&str> = seen.iter().map(|it| it.get("x-request-id").unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 20);
}

/// Whatever a service says of a request that it got twice, it got the same: one id, and nobody added to it twice.
#[tokio::test]
async fn what_is_sent_again_is_what_was_sent() {
    for trusted in [Vec::new(), here()] {
        let upstream = Upstream::new(|mut served| async move {
            while served.request().await.is_some() && served.number > 0 {
                served.send(OK).await;
            }
        })
        .await;
        let world = World::before(&upstream, |config| config.trusted = trusted);
        let claims = CLAIMS.replace("X-Request-Id: theirs", "X-Two: 1\r\nX-Request-Id: no id\r\nX-Two: 2");
        ask(world.http, format!("GET http://a/twice?x HTTP/1.1\r\nHost: a\r\n{claims}\r\n")).await;
        let seen = upstream.take();
        assert_eq!(seen.len(), 2);
        let lines = |at: usize| {
            let mut lines: Vec<&str> = seen[at].head.lines().collect();
            lines[1..].sort_unstable();
            lines
        };
        assert_eq!(lines(0), lines(1));
        assert_eq!(seen[1].first(), "GET /twice?x HTTP/1.1");
        assert_eq!((seen[1].all("x-two").len(), seen[1].get("x-request-id").unwrap().len()), (2, 16));
    }
}

#[tokio::test]
async fn headers_of_one_connection_go_no_further_either_way() {
    let upstream = Upstream::new(|mut served| async move {
        while served.request().await.is_some() {
            let hops = "Connection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\n\
                        Proxy-Authenticate: x\r\nUpgrade: h2c\r\nProxy-Connection: close\r\nX-End: 1\r\n";
            served.send(format!("HTTP/1.1 200 OK\r\n{hops}Content-Length: 2\r\n\r\nok")).await;
        }
    })
    .await;
    let world = World::before(&upstream, |_| {});
    let lines = "Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: close\r\n\
                 Proxy-Authorization: x\r\nProxy: http://evil\r\nTE: trailers, gzip\r\nX-End: 1\r\n";
    let got = ask(world.http, format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n{lines}\r\n")).await;
    let seen = upstream.take().remove(0);
    for name in [
        "connection",
        "x-hop",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "proxy",
        "te",
        "upgrade",
        "proxy-authenticate",
    ] {
        assert_eq!(seen.get(name), None, "to the service");
        assert_eq!(got.get(name), None, "to the client");
    }
    assert_eq!((seen.get("x-end"), got.get("x-end")), (Some("1"), Some("1")));
}

/// A version 2 header for 192.0.2.7, with an extension.
fn version_2() -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x10".to_vec();
    bytes.extend([192, 0, 2, 7, 10, 0, 0, 1, 0xc8, 0x22, 0, 80]);
    bytes.extend([0x04, 0, 1, 0]);
    bytes
}

#[tokio::test]
async fn a_proxy_header_is_read_from_listed_peers() {
    let upstream = Upstream::recording().await;
    let world = World::before(&upstream, |config| config.proxy_protocol = here());
    let asks = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for (header, client) in [
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 51234 80\r\n".to_vec(), "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 51234 80\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (version_2(), "192.0.2.7"),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00".to_vec(), "127.0.0.1"),
    ] {
        assert_eq!(ask(world.http, [&header, asks.as_bytes()].concat()).await.status(), 200);
        assert_eq!(upstream.take()[0].all("x-forwarded-for"), [client]);
    }
    for bad in ["PROXY TCP4 192.0.2.7\r\n", "PROXY TCP5 a b 1 2\r\n", "", "QUIT\r\n\r\n\r\n\r\n\r\n"] {
        let mut client = connect(world.http).await;
        let _ = client.try_send(format!("{bad}{asks}")).await;
        assert_eq!(client.rest().await, b"", "{bad:?}");
    }
    assert!(upstream.take().is_empty());
}

#[tokio::test]
async fn a_proxy_header_of_a_stranger_is_no_request() {
    let upstream = Upstream::recording().await;
    let world = World::before(&upstream, |config| {
        config.proxy_protocol = vec![Network::parse("192.0.2.0/24").unwrap()];
    });
    let asks = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for header in [b"PROXY TCP4 192.0.2.7 10.0.0.1 51234 80\r\n".to_vec(), version_2()] {
        let mut client = connect(world.http).await;
        let _ = client.try_send([&header, asks.as_bytes()].concat()).await;
        let got = String::from_utf8(client.rest().await).unwrap();
        assert!(got.starts_with("HTTP/1.1 400 ") && got.matches("HTTP/1.1").count() == 1, "{got}");
    }
    assert!(upstream.take().is_empty());
}

/// Three requests: one held, one sent twice, one refused; their lines.
async fn logged(style: AccessLogStyle) -> Vec<String> {
    let upstream = Upstream::new(|mut served| async move {
        let number = served.number;
        while let Some(request) = served.request().await {
            // The first connection dies under its second request.
            if number == 0 && request.first().starts_with("GET /again") {
                return;
            }
            served.send(OK).await;
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let config = AccessLogConfig { path: path.clone(), style };
    let world = World::new(|it| it.access_log = Some(config));
    let mut held = connect(world.http).await;
    held.send("GET /held?secret=1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until("it to be held", || (world.held() == 1).then_some(())).await;
    pass(std::time::Duration::from_millis(20)).await;
    world.admit(1, &upstream.endpoint);
    assert_eq!(held.response().await.unwrap().status(), 200);
    assert_eq!(get(world.http, "/again").await.status(), 200);
    assert_eq!(ask(world.http, "GET /\"quoted\" HTTP/1.1\r\nHost: a b\r\n\r\n").await.status(), 400);
    until("three lines", || lines(&path)).await
}

fn lines(path: &Path) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    (lines.len() == 3 && text.ends_with('\n')).then_some(lines)
}

#[tokio::test]
async fn the_common_log_marks_what_was_held_and_sent_again() {
    let lines = logged(AccessLogStyle::Common).await;
    assert!(lines[0].starts_with("127.0.0.1 - - ["), "{lines:?}");
    assert!(lines[0].contains("] \"GET /held HTTP/1.1\" 200 2 ") && lines[0].contains("held="), "{lines:?}");
    assert!(!lines[0].contains("secret"), "{lines:?}");
    assert!(lines[1].contains("replayed=1") && lines[1].contains("attempts=2"), "{lines:?}");
    assert!(lines[2].contains("\"GET /\\\"quoted\\\" HTTP/1.1\" 400 "), "{lines:?}");
}

#[tokio::test]
async fn the_json_log_marks_what_was_held_and_sent_again() {
    let lines = logged(AccessLogStyle::Json).await;
    let all: Vec<serde_json::Value> = lines.iter().map(|it| serde_json::from_str(it).unwrap()).collect();
    assert_eq!(all[0]["path"], "/held");
    assert!(all[0]["held_ms"].as_f64().unwrap() >= 20.0, "{lines:?}");
    assert_eq!((&all[1]["replays"], &all[1]["attempts"]), (&1.into(), &2.into()), "{lines:?}");
    assert_eq!((&all[2]["status"], &all[2]["reason"]), (&400.into(), &"bad-host".into()), "{lines:?}");
}
