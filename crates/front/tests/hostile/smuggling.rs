//! Requests that two parsers could read differently. Each is sent as bytes; what reaches the service is compared with
//! what may, and a request after it shows that nothing was left behind on the service's connection.

mod cases;

use std::fmt::Write as _;

use crate::common::client::{ask, connect, get};
use crate::common::upstream::Upstream;
use crate::common::wire::Message;
use crate::common::{NAME, PATIENCE, World};
use cases::{Case, Fate};

/// `POST /a hello`: the method, the target and the body.
fn brief(message: &Message) -> String {
    let mut words = message.first().split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let body = String::from_utf8_lossy(&message.body);
    format!("{method} {target} {body}").trim_end().to_owned()
}

/// What is wrong with how the front took it; empty where nothing is.
async fn verdict(world: &World, upstream: &Upstream, case: &Case) -> String {
    let mut wrong = String::new();
    let mut client = connect(world.http).await;
    // The front may have closed before it took all of it.
    let _ = client.try_send(&case.bytes).await;
    let (statuses, closes, reaches): (Vec<u16>, bool, Vec<String>) = match &case.fate {
        Fate::Refused(status) => (vec![*status], true, Vec::new()),
        Fate::Passes(requests) => (vec![200; requests.len()], false, owned(requests)),
        Fate::PassesThenCloses(requests) => (vec![200; requests.len()], true, owned(requests)),
        Fate::PassesThenRefused(requests, status) => {
            ([vec![200; requests.len()], vec![*status]].concat(), true, owned(requests))
        }
    };
    for status in statuses {
        let got = client.response().await.map_or(0, |it| it.status());
        if got != status {
            let _ = write!(wrong, "answered {got}, not {status}; ");
        }
    }
    if closes {
        let rest = client.rest().await;
        if !rest.is_empty() {
            let _ = write!(wrong, "more came: {:?}; ", String::from_utf8_lossy(&rest));
        }
    } else {
        let _ = client.try_send(format!("GET /next HTTP/1.1\r\nHost: {NAME}\r\n\r\n")).await;
        if client.response().await.is_none_or(|it| it.status() != 200) {
            let _ = write!(wrong, "the connection was closed; ");
        }
    }
    get(world.http, "/last").await;
    let mut expected = reaches;
    expected.extend((!closes).then(|| "GET /next".to_owned()));
    expected.push("GET /last".to_owned());
    let seen: Vec<String> = upstream.take().iter().map(brief).collect();
    if seen != expected {
        let _ = write!(wrong, "the service saw {seen:?}, not {expected:?}");
    }
    wrong
}

fn owned(requests: &[&str]) -> Vec<String> {
    requests.iter().map(|it| (*it).to_owned()).collect()
}

async fn all(cases: Vec<Case>) {
    let upstream = Upstream::recording().await;
    let world = World::before(&upstream, |_| {});
    let mut complaints = Vec::new();
    for case in &cases {
        let wrong = tokio::time::timeout(PATIENCE, verdict(&world, &upstream, case)).await;
        let wrong = wrong.unwrap_or_else(|_| "neither answered nor closed".to_owned());
        if !wrong.is_empty() {
            complaints.push(format!("{}: {wrong}", case.what));
        }
    }
    assert!(complaints.is_empty(), "{} of {}:\n{}", complaints.len(), cases.len(), complaints.join("\n"));
}

#[tokio::test]
async fn a_body_has_one_length_and_everybody_the_same() {
    all(cases::lengths()).await;
}

#[tokio::test]
async fn a_transfer_coding_is_chunked_or_refused() {
    all(cases::codings()).await;
}

#[tokio::test]
async fn chunks_are_what_they_say_or_refused() {
    all(cases::chunks()).await;
}

#[tokio::test]
async fn a_head_is_lines_of_text_or_refused() {
    all(cases::heads()).await;
}

#[tokio::test]
async fn a_request_line_has_three_words_and_a_version_that_is_spoken_here() {
    all(cases::request_lines()).await;
}

#[tokio::test]
async fn a_request_is_for_one_host() {
    all(cases::hosts()).await;
}

#[tokio::test]
async fn sizes_have_bounds() {
    all(cases::sizes()).await;
}

/// What the service gets of the headers in `lines`.
async fn passed(lines: &str) -> Message {
    let upstream = Upstream::recording().await;
    let world = World::before(&upstream, |_| {});
    let answer = ask(world.http, format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n{lines}\r\n")).await;
    assert_eq!(answer.status(), 200, "{lines}");
    let mut seen = upstream.take();
    assert_eq!(seen.len(), 1);
    seen.remove(0)
}

#[tokio::test]
async fn names_with_an_underscore_do_not_arrive() {
    let seen = passed("X_Forwarded_For: 10.0.0.1\r\nContent_Length: 9\r\nX-Fine: 1\r\n").await;
    assert!(!seen.head.contains('_'), "{}", seen.head);
    assert_eq!(seen.get("x-fine"), Some("1"));
}

#[tokio::test]
async fn connection_cannot_talk_the_host_or_the_client_out_of_a_request() {
    let seen =
        passed("Connection: Host, X-Forwarded-For, X-Forwarded-Proto, X-Private, close\r\nX-Private: 1\r\n")
            .await;
    assert_eq!(seen.all("host"), [NAME]);
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["http"]);
    assert!(seen.all("x-private").is_empty() && seen.all("connection").is_empty(), "{}", seen.head);
}

#[tokio::test]
async fn obs_text_in_a_value_arrives_as_it_was_sent() {
    let upstream = Upstream::recording().await;
    let world = World::before(&upstream, |_| {});
    let mut client = connect(world.http).await;
    client.send([b"GET / HTTP/1.1\r\nHost: a\r\nX: ".as_slice(), &[0xff, 0xe9], b"\r\n\r\n"].concat()).await;
    assert_eq!(client.response().await.unwrap().status(), 200);
    assert_eq!(upstream.take()[0].get("x"), Some("\u{fffd}\u{fffd}"));
}

#[tokio::test]
async fn an_upgrade_to_another_http_is_not_passed_on() {
    for protocol in ["h2c", "H2C", "HTTP/2.0", "TLS/1.0", "websocket, h2c"] {
        let lines = format!(
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
        );
        let seen = passed(&lines).await;
        assert!(seen.get("upgrade").is_none(), "{protocol}: {}", seen.head);
        assert!(seen.get("http2-settings").is_none() && seen.get("connection").is_none(), "{}", seen.head);
    }
}

#[tokio::test]
async fn http_1_0_has_no_upgrade() {
    let upstream = Upstream::recording().await;
    let world = World::before(&upstream, |_| {});
    let request = "GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(ask(world.http, request).await.status(), 200);
    assert_eq!(upstream.take()[0].get("upgrade"), None);
}

#[tokio::test]
async fn what_follows_an_upgrade_waits_for_the_service_to_agree() {
    let upstream = Upstream::recording().await;
    let world = World::before(&upstream, |_| {});
    let mut client = connect(world.http).await;
    let asks = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.send(format!("{asks}GET /evil HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n")).await;
    // The service says 200: no upgrade, and the second is a request like any other.
    assert_eq!(client.response().await.unwrap().status(), 200);
    assert_eq!(client.response().await.unwrap().status(), 200);
    let seen = upstream.take();
    assert_eq!(seen.iter().map(brief).collect::<Vec<_>>(), ["GET /ws", "GET /evil"]);
    assert_eq!(seen[1].all("x-forwarded-for"), ["127.0.0.1"]);
}

#[tokio::test]
async fn trailers_cannot_be_used_to_say_what_headers_may_not() {
    let upstream = Upstream::recording().await;
    let world = World::before(&upstream, |_| {});
    let names = "X-Forwarded-For, Content-Length, Transfer-Encoding, Host, X_Under, X-Real-IP, X-Sum";
    let trailers = "X-Forwarded-For: 10.0.0.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\
                    Host: evil\r\nX_Under: 1\r\nX-Real-IP: 10.0.0.1\r\nX-Sum: 7\r\n";
    let head =
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: {names}\r\n\r\n");
    let answer = ask(world.http, format!("{head}5\r\nhello\r\n0\r\n{trailers}\r\n")).await;
    assert_eq!(answer.status(), 200);
    let seen = upstream.take().remove(0);
    assert_eq!(seen.trailers.to_ascii_lowercase(), "x-sum: 7\r\n");
}
