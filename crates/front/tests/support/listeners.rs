//! The two listeners of a front, as far as an authority sees them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use plimsoll_front::acme::Challenges;
use plimsoll_front::tls::{Accepted, Acceptor, Certificates};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

pub(crate) struct Listeners {
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) challenges: Arc<Challenges>,
    pub(crate) http: SocketAddr,
    pub(crate) tls: SocketAddr,
    /// Answers challenges with nonsense.
    pub(crate) lying: Arc<AtomicBool>,
    /// Validations by TLS-ALPN-01 that were answered.
    pub(crate) validated: Arc<AtomicUsize>,
}

impl Listeners {
    pub(crate) async fn start() -> Self {
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tls = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listeners = Self {
            certificates: Certificates::new(),
            challenges: Challenges::new(),
            http: http.local_addr().unwrap(),
            tls: tls.local_addr().unwrap(),
            lying: Arc::default(),
            validated: Arc::default(),
        };
        let acceptor =
            Acceptor::new(Arc::clone(&listeners.certificates), Arc::clone(&listeners.challenges)).unwrap();
        tokio::spawn(serve_http(http, Arc::clone(&listeners.challenges), Arc::clone(&listeners.lying)));
        tokio::spawn(serve_tls(tls, acceptor, Arc::clone(&listeners.validated)));
        listeners
    }
}

async fn serve_http(listener: TcpListener, challenges: Arc<Challenges>, lying: Arc<AtomicBool>) {
    while let Ok((tcp, _)) = listener.accept().await {
        tokio::spawn(answer(tcp, Arc::clone(&challenges), Arc::clone(&lying)));
    }
}

async fn answer(tcp: TcpStream, challenges: Arc<Challenges>, lying: Arc<AtomicBool>) -> std::io::Result<()> {
    let mut tcp = BufReader::new(tcp);
    let mut first = String::new();
    tcp.read_line(&mut first).await?;
    let mut line = String::new();
    while tcp.read_line(&mut line).await? > 2 {
        line.clear();
    }
    let path = first.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match challenges.http_answer(path) {
        Some(_) if lying.load(Ordering::Relaxed) => ("200 OK", "nonsense".to_owned()),
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", String::new()),
    };
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    tcp.get_mut().write_all(text.as_bytes()).await?;
    tcp.get_mut().shutdown().await
}

async fn serve_tls(listener: TcpListener, acceptor: Acceptor, validated: Arc<AtomicUsize>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (acceptor, validated) = (acceptor.clone(), Arc::clone(&validated));
        tokio::spawn(async move {
            if let Ok(Accepted::Challenge) = acceptor.accept(tcp, Duration::from_secs(30)).await {
                validated.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}
