//! Accepts connections, and stops as a service should: what was begun is finished, then the process ends.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::inject::Faults;
use super::reports::Reports;
use super::routes::Service;
use super::{SampleArgs, SampleError, say};

/// Connections served at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4096;
/// For the head of a request, and so for an idle connection.
const HEAD_WAIT_MAX: Duration = Duration::from_mins(1);
/// Before the next try when a connection could not be accepted, which is nearly always for want of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// After SIGTERM, what is already on its way is still taken for this long.
const LAST_CALL: Duration = Duration::from_millis(20);
/// Then requests in flight have this long. Whoever runs the service is likely to be less patient.
const DRAIN_MAX: Duration = Duration::from_mins(1);

/// Serves until SIGTERM.
pub(super) async fn serve(args: &SampleArgs) -> Result<(), SampleError> {
    let reports = Reports::open(&args.database)
        .map_err(|source| SampleError::Database { path: args.database.clone(), source })?;
    sleep(Duration::from_millis(args.boot_ms)).await;
    let listen_error = |source| SampleError::Listen { port: args.port, source };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).await.map_err(listen_error)?;
    let address = listener.local_addr().map_err(listen_error)?;
    let term = signal(SignalKind::terminate()).map_err(SampleError::Runtime)?;

    let service = Rc::new(Service::new(reports, Faults::new(args.database.clone())));
    say(&format!("listening on {address}"));
    let mut connections = accept_until(told_to_stop(term, &service.faults), &listener, &service).await;
    if args.drain {
        say(&format!("stopping: {} requests in flight", service.in_flight()));
        drain(&mut connections, listener, &service).await;
    }
    say("stopped");
    Ok(())
}

/// The connections being served, and the way to tell them all to end.
struct Connections {
    tasks: JoinSet<()>,
    stopping: watch::Sender<bool>,
}

impl Connections {
    fn new() -> Self {
        Self { tasks: JoinSet::new(), stopping: watch::Sender::new(false) }
    }

    fn have_room(&self) -> bool {
        self.tasks.len() < CONNECTIONS_MAX
    }

    fn start(&mut self, stream: TcpStream, service: &Rc<Service>) {
        self.tasks.spawn_local(connection(stream, Rc::clone(service), self.stopping.subscribe()));
    }

    /// Forgets the connections that ended; pends for ever when there is none.
    async fn ended(&mut self) {
        if self.tasks.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// SIGTERM, unless the fault is on that makes the service deaf to it.
async fn told_to_stop(mut term: Signal, faults: &Faults) {
    while term.recv().await.is_some() {
        if !faults.ignores_term() {
            return;
        }
        say("fault: SIGTERM ignored");
    }
    std::future::pending::<()>().await;
}

async fn accept_until(
    stop: impl Future<Output = ()>,
    listener: &TcpListener,
    service: &Rc<Service>,
) -> Connections {
    let mut connections = Connections::new();
    accept_into(&mut connections, stop, listener, service).await;
    connections
}

async fn accept_into(
    connections: &mut Connections,
    stop: impl Future<Output = ()>,
    listener: &TcpListener,
    service: &Rc<Service>,
) {
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            accepted = listener.accept(), if connections.have_room() => match accepted {
                Ok((stream, _)) => connections.start(stream, service),
                Err(error) => refused(&error).await,
            },
            () = connections.ended() => {}
        }
    }
}

/// Out of descriptors the queue stays readable: without a pause the loop would spin.
async fn refused(error: &io::Error) {
    say(&format!("cannot accept: {error}"));
    sleep(ACCEPT_RETRY).await;
}

async fn drain(connections: &mut Connections, listener: TcpListener, service: &Rc<Service>) {
    service.stop();
    accept_into(connections, sleep(LAST_CALL), &listener, service).await;
    // From here on a new client is refused at once rather than left waiting.
    drop(listener);
    connections.stopping.send_replace(true);
    let all = async { while connections.tasks.join_next().await.is_some() {} };
    if timeout(DRAIN_MAX, all).await.is_err() {
        say(&format!("gave up on {} requests in flight", service.in_flight()));
    }
}

/// Serves one connection until its client closes it, or until the request at hand is answered after `stopping`.
async fn connection(stream: TcpStream, service: Rc<Service>, mut stopping: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let answer = service_fn(|request| {
        let service = Rc::clone(&service);
        async move { Ok::<_, Infallible>(service.answer(request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT_MAX);
    let mut serving = pin!(http.serve_connection(TokioIo::new(stream), answer));
    tokio::select! {
        // How a connection ended is its client's business; the service only ends it.
        _ = serving.as_mut() => return,
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = serving.await;
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::task::{LocalSet, spawn_local};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A service on a port of its own.
    #[derive(Clone)]
    struct Running {
        address: SocketAddr,
        service: Rc<Service>,
        stopping: watch::Sender<bool>,
    }

    impl Running {
        fn stop(&self) {
            self.stopping.send_replace(true);
        }
    }

    /// Runs `test` against a service, stops that (if the test has not) and waits until it drained.
    fn with_service<T: Future<Output = ()>>(test: impl FnOnce(Running) -> T) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let folder = tempfile::tempdir().unwrap();
            let database = folder.path().join("reports.db");
            let reports = Reports::open(&database).unwrap();
            let service = Rc::new(Service::new(reports, Faults::new(database)));
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            let running = Running { address, service, stopping: watch::Sender::new(false) };
            let serving = spawn_local(serve_until_stopped(listener, running.clone()));
            timeout(PATIENCE, test(running.clone())).await.expect("the test ends in time");
            running.stop();
            timeout(PATIENCE, serving).await.expect("the service drains in time").unwrap();
        });
    }

    async fn serve_until_stopped(listener: TcpListener, running: Running) {
        let mut stopping = running.stopping.subscribe();
        let stop = async { drop(stopping.wait_for(|stopping| *stopping).await) };
        let mut connections = accept_until(stop, &listener, &running.service).await;
        drain(&mut connections, listener, &running.service).await;
    }

    /// Sends `request` on a connection of its own and returns all that comes back.
    async fn exchange(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn get(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
    }

    fn post(path: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
        )
    }

    #[test]
    fn a_posted_report_can_be_read_and_its_request_key_is_kept() {
        with_service(|Running { address, .. }| async move {
            let draft = r#"{"title":"t","body":"b"}"#;
            let created = exchange(address, &post("/reports", "idempotency-key: k1\r\n", draft)).await;
            assert!(
                created.starts_with("HTTP/1.1 201") && created.contains("location: /reports/1"),
                "{created}"
            );
            exchange(address, &post("/reports", "x-request-id: k1\r\n", draft)).await;
            let report = exchange(address, &get("/reports/1")).await;
            assert!(report.contains(r#""request_key":"k1""#), "{report}");
            let stats = exchange(address, &get("/stats")).await;
            assert!(stats.contains(r#""reports":2,"duplicates":1"#), "{stats}");
        });
    }

    #[test]
    fn every_refusal_says_whose_fault_it_is() {
        with_service(|Running { address, .. }| async move {
            let large = "x".repeat(65 * 1024);
            for (request, status) in [
                (get("/reports/9"), 404),
                (get("/reports?limit=x"), 400),
                (get("/fault/hang"), 405),
                (post("/health", "", ""), 405),
                (post("/reports", "", "no json"), 422),
                (post("/reports", "", r#"{"title":"t"}"#), 422),
                (post("/reports", "", &large), 413),
                (post("/fault/nap", "", ""), 404),
                (post("/fault/spike?size=big", "", ""), 400),
            ] {
                let answer = exchange(address, &request).await;
                let line = request.lines().next().unwrap();
                assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{line}: {answer}");
            }
        });
    }

    #[test]
    fn a_connection_carries_many_requests() {
        with_service(|Running { address, .. }| async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            for _ in 0..3 {
                stream.write_all(b"GET /health HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
                let mut answer = [0; 4096];
                let length = stream.read(&mut answer).await.unwrap();
                assert!(answer[..length].starts_with(b"HTTP/1.1 200 OK"));
            }
        });
    }

    #[test]
    fn a_request_in_flight_is_answered_after_the_stop() {
        with_service(|running| async move {
            exchange(running.address, &post("/fault/slow?delay=200ms&for=1m", "", "")).await;
            let slow = spawn_local(async move { exchange(running.address, &get("/health")).await });
            while running.service.in_flight() == 0 {
                tokio::task::yield_now().await;
            }
            running.stop();
            let answer = slow.await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert!(answer.contains("connection: close"), "{answer}");
        });
    }

    #[test]
    fn an_idle_connection_does_not_hold_up_the_stop() {
        with_service(|running| async move {
            let mut stream = TcpStream::connect(running.address).await.unwrap();
            stream.write_all(b"GET /health HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            running.stop();
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "the service closed it");
        });
    }
}
