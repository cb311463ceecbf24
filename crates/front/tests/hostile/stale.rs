//! A service that closes idle connections just as a request is on its way.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use plimsoll_front::Endpoint;

use crate::common::client::connect;
use crate::common::upstream::OK;
use crate::common::{SERVICE, World, loopback};

const REQUESTS: usize = 600;
/// The wait before a close grows by this with each connection, and begins anew after so many.
const STEP: Duration = Duration::from_micros(5);
const STEPS: u32 = 80;

/// Answers one request on each connection and closes it soon after, which it does not announce. A thread of its own, so
/// that it closes while its client sends.
struct Closing {
    address: SocketAddr,
    /// First lines of the requests that came.
    seen: Arc<Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Closing {
    fn start() -> Self {
        let listener = TcpListener::bind(loopback()).unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, over) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let (noted, ends) = (Arc::clone(&seen), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            for number in 0.. {
                let (stream, _) = listener.accept().unwrap();
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                if let Some(line) = serve(stream, STEP * (number % STEPS)) {
                    noted.lock().unwrap().push(line);
                }
            }
        });
        Self { address, seen, over, thread: Some(thread) }
    }
}

/// The first line of the one request; `None` where none came.
fn serve(mut stream: TcpStream, wait: Duration) -> Option<String> {
    stream.set_nodelay(true).unwrap();
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    let end = |bytes: &[u8]| {
        let head = bytes.windows(4).position(|it| it == b"\r\n\r\n")?;
        let body = usize::from(bytes.starts_with(b"POST"));
        (bytes.len() >= head + 4 + body).then_some(())
    };
    while end(&bytes).is_none() {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
        }
    }
    let _ = stream.write_all(OK.as_bytes());
    let until = Instant::now() + wait;
    while Instant::now() < until {}
    String::from_utf8_lossy(&bytes).lines().next().map(str::to_owned)
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[tokio::test]
async fn no_request_is_lost_and_none_is_carried_out_twice() {
    let service = Closing::start();
    let world = World::new(|_| {});
    world.admit(1, &Endpoint::Tcp(service.address));
    let mut client = connect(world.http).await;
    let mut lost = 0;
    for number in 0..REQUESTS {
        let safe = number % 2 == 0;
        let (method, body) = if safe { ("GET", "") } else { ("POST", "x") };
        let length = body.len();
        client
            .send(format!("{method} /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"))
            .await;
        let got = client.response().await.unwrap();
        let reason = got.get("plimsoll-reason").unwrap_or_default();
        if safe || got.status() == 200 {
            assert_eq!((got.status(), reason), (200, ""), "{method} {number}");
        } else {
            // It had been sent: nobody but the service knows what it had read of it.
            assert_eq!((got.status(), reason), (502, "may-have-run"), "{method} {number}");
            lost += 1;
        }
    }
    let seen = service.seen.lock().unwrap().clone();
    for number in (1..REQUESTS).step_by(2) {
        let line = format!("POST /{number} HTTP/1.1");
        assert!(seen.iter().filter(|it| **it == line).count() <= 1, "{line} was carried out twice");
    }
    let again = world.front.traffic(SERVICE).unwrap().replayed;
    assert!(lost < REQUESTS / 4, "{lost} may have run, {again} were sent again");
}
