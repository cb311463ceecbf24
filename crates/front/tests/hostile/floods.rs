//! Clients that use HTTP/2 against the front: each is ended or costs little, and others are served meanwhile.

use std::time::Duration;

use bytes::Bytes;
use plimsoll_front::config::FrontConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::client::{connect_tls, get};
use crate::common::upstream::{OK, Upstream};
use crate::common::{NAME, PATIENCE, World, pass, resident, soon, until};
use crate::http2;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head, stream.to_be_bytes().as_slice(), payload].concat()
}

/// `GET https://front.test/`, or `POST`, as HPACK.
fn block(method: u8) -> Vec<u8> {
    let name = NAME.as_bytes();
    [&[method, 0x87, 0x84, 0x41, u8::try_from(name.len()).unwrap()], name].concat()
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;

fn get_on(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(GET))
}

fn opening(settings: &[u8]) -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, settings)].concat()
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The front closed it; with the error of its GOAWAY.
    Closed(Option<u32>),
    /// The front stopped reading, and ended it for that.
    Stopped,
    /// All was taken.
    Taken,
}

const WRITE_STALL: Duration = Duration::from_millis(500);
/// Of this process, in which other tests may run as well.
const GROWTH_MAX: u64 = 64 << 20;

fn limits(config: &mut FrontConfig) {
    config.limits.write_stall = WRITE_STALL;
}

async fn front(upstream: &Upstream) -> World {
    let world = World::with_tls(limits);
    world.admit(1, &upstream.endpoint);
    // Whatever is set up once, is.
    assert_eq!(get(world.http, "/").await.status(), 200);
    world
}

/// Sends `pieces`, many times in all, while somebody else is served.
async fn flood(world: &World, first: Vec<u8>, pieces: impl Iterator<Item = Vec<u8>>, reads: bool) -> End {
    let before = resident();
    let ask_beside = async {
        for _ in 0..20 {
            assert_eq!(get(world.http, "/beside").await.text(), "ok");
        }
    };
    let (end, ()) = tokio::join!(pour(world, first, pieces, reads), ask_beside);
    let growth = resident().saturating_sub(before);
    assert!(growth < GROWTH_MAX, "grew by {} MiB", growth >> 20);
    ended(world).await;
    end
}

/// No more is open or in flight than nothing.
async fn ended(world: &World) {
    until("the connection to be gone", || (world.front.counts().connections == 0).then_some(())).await;
    until("nothing to be in flight", || (world.in_flight() == 0).then_some(())).await;
}

async fn pour(world: &World, first: Vec<u8>, pieces: impl Iterator<Item = Vec<u8>>, reads: bool) -> End {
    let (mut input, mut output) = tokio::io::split(connect_tls(world.https(), "h2").await);
    let listening = tokio::spawn(async move {
        let mut said = Vec::new();
        if reads {
            let _ = input.read_to_end(&mut said).await;
        } else {
            // The socket stays open, and full.
            std::future::pending::<()>().await;
        }
        goaway(&said)
    });
    let writing = async {
        output.write_all(&first).await?;
        for piece in pieces {
            output.write_all(&piece).await?;
        }
        output.flush().await
    };
    let written = soon("the flood to be over", writing).await;
    if !reads {
        listening.abort();
        return if written.is_ok() { End::Taken } else { End::Stopped };
    }
    let taken = written.is_ok();
    if taken {
        let _ = output.shutdown().await;
    }
    match soon("the end", listening).await.unwrap() {
        Some(0) | None if taken => End::Taken,
        code => End::Closed(code),
    }
}

/// The error of the last GOAWAY in what was said.
fn goaway(mut said: &[u8]) -> Option<u32> {
    let mut code = None;
    while let Some(head) = said.get(..9) {
        let length = usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap();
        let payload = said.get(9..9 + length).unwrap_or_default();
        if head[3] == GOAWAY && payload.len() >= 8 {
            code = Some(u32::from_be_bytes([payload[4], payload[5], payload[6], payload[7]]));
        }
        said = said.get(9 + length..).unwrap_or_default();
    }
    code
}

const ENHANCE_YOUR_CALM: u32 = 11;

fn streams() -> impl Iterator<Item = u32> {
    (0..).map(|number| 2 * number + 1)
}

#[tokio::test]
async fn rapid_reset() {
    let upstream = Upstream::recording().await;
    let world = front(&upstream).await;
    upstream.take();
    let pieces = streams()
        .take(50_000)
        .map(|stream| [get_on(stream), frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())].concat());
    let end = flood(&world, opening(&[]), pieces, true).await;
    assert_eq!(end, End::Closed(Some(ENHANCE_YOUR_CALM)));
    let reached = upstream.take().iter().filter(|it| it.first().starts_with("GET / ")).count();
    assert!(reached < 1_000, "{reached} reached the service");
}

/// Far above what is suffered; the look at the connections comes only so often.
const RESETS_MAX: u32 = 10_000;

/// For what is over in less time than a timer takes.
async fn spin(condition: impl Fn() -> bool) {
    soon("it to happen", async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Slow enough that each stream is taken up before it is reset.
#[tokio::test]
async fn resets_one_at_a_time() {
    let upstream = Upstream::new(|mut served| async move {
        while let Some(request) = served.request().await {
            if request.first().starts_with("GET / ") {
                return served.wire.forget().await;
            }
            served.send(OK).await;
        }
    })
    .await;
    let world = World::with_tls(limits);
    world.admit(1, &upstream.endpoint);
    let client = http2::client(&world).await;
    let is_over = || world.front.counts().ended_flood == 1;
    let mut taken = 0;
    while taken < RESETS_MAX && !is_over() {
        let Ok(mut ready) = soon("room for a stream", client.clone().ready()).await else { break };
        let asks = http::Request::builder().uri(format!("https://{NAME}/")).body(()).unwrap();
        let Ok((_response, mut stream)) = ready.send_request(asks, true) else { break };
        spin(|| world.in_flight() == 1 || is_over()).await;
        stream.send_reset(h2::Reason::CANCEL);
        spin(|| world.in_flight() == 0).await;
        taken += 1;
    }
    assert!(taken < RESETS_MAX, "nobody minds {taken} requests that nobody wants");
    until("the reason to be counted", || is_over().then_some(())).await;
    ended(&world).await;
    assert_eq!(get(world.http, "/beside").await.status(), 200);
}

#[tokio::test]
async fn continuation() {
    let upstream = Upstream::recording().await;
    let world = front(&upstream).await;
    let first = [opening(&[]), frame(HEADERS, END_STREAM, 1, &block(GET))].concat();
    for size in [0, 16, 4096] {
        // A literal header of a name and a value, never indexed; cut anywhere.
        let header = [b"\x10\x01x\x7f\x81\x1e".to_vec(), vec![b'x'; 4000]].concat();
        let piece = frame(CONTINUATION, 0, 1, &header[..size.min(header.len())]);
        let end = flood(&world, first.clone(), std::iter::repeat_n(piece, 20_000), true).await;
        assert!(matches!(end, End::Closed(_)), "{size}: {end:?}");
    }
}

#[tokio::test]
async fn settings() {
    let upstream = Upstream::recording().await;
    let world = front(&upstream).await;
    let piece = frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]).repeat(100);
    let end = flood(&world, opening(&[]), std::iter::repeat_n(piece, 100_000), false).await;
    assert_eq!(end, End::Stopped);
}

#[tokio::test]
async fn pings() {
    let upstream = Upstream::recording().await;
    let world = front(&upstream).await;
    let piece = frame(PING, 0, 0, &[0; 8]).repeat(100);
    let end = flood(&world, opening(&[]), std::iter::repeat_n(piece, 100_000), false).await;
    assert_eq!(end, End::Stopped);
}

#[tokio::test]
async fn more_streams_than_may_be() {
    let world = World::with_tls(|config| {
        limits(config);
        config.limits.streams = 10;
    });
    let upstream = Upstream::recording().await;
    let (mut input, mut output) = tokio::io::split(connect_tls(world.https(), "h2").await);
    let mut all = opening(&[]);
    all.extend(streams().take(500).flat_map(get_on));
    output.write_all(&all).await.unwrap();
    output.flush().await.unwrap();
    until("as many as may to be held", || (world.held() == 10).then_some(())).await;
    let mut refused = 0;
    let mut buffer = Vec::new();
    while refused < 490 {
        if soon("a refusal", input.read_buf(&mut buffer)).await.unwrap() == 0 {
            break;
        }
        let all = frames(&buffer);
        if all.iter().any(|it| it.0 == GOAWAY) {
            break;
        }
        refused = all.iter().filter(|it| it.0 == RST_STREAM).count();
    }
    assert!(world.held() <= 10);
    drop((input, output));
    until("them to be gone", || (world.held() == 0).then_some(())).await;
    world.admit(1, &upstream.endpoint);
    assert_eq!(get(world.http, "/").await.status(), 200);
}

/// Kinds and streams of the whole frames.
fn frames(mut said: &[u8]) -> Vec<(u8, u32)> {
    let mut all = Vec::new();
    while let Some(head) = said.get(..9) {
        let length = usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap();
        let Some(rest) = said.get(9 + length..) else { break };
        all.push((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]])));
        said = rest;
    }
    all
}

/// A header of 4,000 bytes in the table, then named as often as fits into frames.
fn bomb(times: usize) -> Vec<u8> {
    let mut header = block(GET);
    header.extend(b"\x40\x01x\x7f\xa1\x1e");
    header.extend(vec![b'x'; 4000]);
    header.extend(vec![0xbe; times]);
    let mut chunks = header.chunks(16_000).peekable();
    let mut all = frame(HEADERS, END_STREAM, 1, chunks.next().unwrap());
    while let Some(chunk) = chunks.next() {
        let flags = if chunks.peek().is_none() { END_HEADERS } else { 0 };
        all.extend(frame(CONTINUATION, flags, 1, chunk));
    }
    all
}

#[tokio::test]
async fn a_header_list_without_measure() {
    let upstream = Upstream::recording().await;
    let world = front(&upstream).await;
    upstream.take();
    for times in [100, 12_000, 60_000] {
        flood(&world, [opening(&[]), bomb(times)].concat(), std::iter::empty(), true).await;
    }
    assert!(upstream.take().iter().all(|it| it.first().contains("/beside")));
}

#[tokio::test]
async fn empty_data() {
    let upstream = Upstream::recording().await;
    let world = front(&upstream).await;
    let first = [opening(&[]), frame(HEADERS, END_HEADERS, 1, &block(POST))].concat();
    let piece = frame(DATA, 0, 1, b"").repeat(100);
    let end = flood(&world, first, std::iter::repeat_n(piece, 20_000), true).await;
    assert!(matches!(end, End::Closed(_)), "{end:?}");
}

#[tokio::test]
async fn window_updates_and_priorities() {
    let upstream = Upstream::recording().await;
    let world = front(&upstream).await;
    for piece in [frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()), frame(2, 0, 1, &[0, 0, 0, 0, 1])] {
        // They cost their bytes to read and nothing else.
        flood(&world, opening(&[]), std::iter::repeat_n(piece.repeat(100), 2_000), true).await;
    }
}

#[tokio::test]
async fn a_window_that_never_opens() {
    let large = format!("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000));
    let upstream = Upstream::new(move |mut served| {
        let large = large.clone();
        async move {
            while let Some(request) = served.request().await {
                served.send(if request.first().starts_with("GET / ") { &large } else { OK }).await;
            }
        }
    })
    .await;
    let world = World::with_tls(limits);
    world.admit(1, &upstream.endpoint);
    let (mut input, mut output) = tokio::io::split(connect_tls(world.https(), "h2").await);
    // SETTINGS_INITIAL_WINDOW_SIZE: 0.
    let mut all = opening(&[0, 4, 0, 0, 0, 0]);
    all.extend(streams().take(20).flat_map(get_on));
    output.write_all(&all).await.unwrap();
    output.flush().await.unwrap();
    // It answers pings, and asks for more that is small and would fit nowhere either: it is alive, and takes nothing.
    let living = async {
        let mut said = [0; 4096];
        while input.read(&mut said).await.is_ok_and(|it| it > 0) {}
    };
    tokio::time::timeout(PATIENCE, living).await.unwrap();
    assert_eq!(world.front.counts().ended_write, 1);
    ended(&world).await;
    assert_eq!(get(world.http, "/beside").await.status(), 200);
}

#[tokio::test]
async fn an_upload_that_stops_beside_one_that_goes_on() {
    let upstream = Upstream::recording().await;
    let world = World::with_tls(|config| config.limits.body_idle = WRITE_STALL);
    world.admit(1, &upstream.endpoint);
    let client = http2::client(&world).await;
    let post = || http::Request::builder().method("POST").uri(format!("https://{NAME}/")).body(()).unwrap();
    let (_stopped, _stream) = http2::send(&client, post(), false).await;
    let (_moving, mut stream) = http2::send(&client, post(), false).await;
    soon("the connection to be ended", async {
        while stream.send_data(Bytes::from("x"), false).is_ok() {
            pass(WRITE_STALL / 10).await;
        }
    })
    .await;
    assert_eq!(world.front.counts().ended_body, 1);
}
