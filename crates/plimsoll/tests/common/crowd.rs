//! Clients that ask without a pause until they are told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use super::http::{self, Kept};
use super::until;

const CLIENTS: usize = 4;

pub struct Crowd {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Crowd {
    /// Half of them keep their connections for as long as they may; with `posts`, half of each write.
    pub fn start(front: SocketAddr, posts: bool) -> Self {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |index: usize| {
            let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
            let mut client = Client { front, keeps: index >= CLIENTS / 2, kept: None };
            std::thread::spawn(move || {
                let mut failed = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let answer = if posts && index.is_multiple_of(2) {
                        client.ask("POST", "/reports", r#"{"title":"a","body":"b"}"#)
                    } else {
                        client.ask("GET", "/health", "")
                    };
                    asked.fetch_add(1, Ordering::Relaxed);
                    if !matches!(&answer, Ok((200 | 201, _))) {
                        failed.push(format!("{answer:?}"));
                    }
                }
                failed
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { stop, asked, clients }
    }

    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Until it has asked this much more.
    #[track_caller]
    pub fn goes_on(&self, more: usize) {
        let before = self.asked.load(Ordering::Relaxed);
        until("the crowd goes on", || self.asked.load(Ordering::Relaxed) >= before + more);
    }

    /// What went wrong.
    pub fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().flat_map(|it| it.join().unwrap()).collect()
    }
}

struct Client {
    front: SocketAddr,
    keeps: bool,
    kept: Option<Kept>,
}

impl Client {
    fn ask(&mut self, method: &str, path: &str, body: &str) -> http::Answer {
        let mut connection = match self.kept.take() {
            Some(kept) => kept,
            None => Kept::connect(self.front)?,
        };
        let (answer, goes_on) = connection.ask(method, path, body)?;
        self.kept = Some(connection).filter(|_| goes_on && self.keeps);
        Ok(answer)
    }
}
