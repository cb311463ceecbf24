//! Upstreams: each connection is served by a script.

use std::sync::{Arc, Mutex};

use plimsoll_front::Endpoint;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::loopback;
use super::wire::{Message, Wire};

/// Listens for as long as it lives.
pub(crate) struct Upstream {
    pub(crate) endpoint: Endpoint,
    /// Requests that it noted, in the order in which they were whole.
    pub(crate) seen: Arc<Mutex<Vec<Message>>>,
    task: JoinHandle<()>,
}

/// One connection of an upstream: its bytes, its number from 0, and where requests are noted.
pub(crate) struct Served {
    pub(crate) wire: Wire<TcpStream>,
    pub(crate) number: usize,
    seen: Arc<Mutex<Vec<Message>>>,
}

impl Served {
    /// The next request, noted.
    pub(crate) async fn request(&mut self) -> Option<Message> {
        let request = self.wire.request().await?;
        self.seen.lock().unwrap().push(request.clone());
        Some(request)
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // A front that has gone needs no answer.
        let _ = self.wire.try_send(bytes).await;
    }
}

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

impl Upstream {
    pub(crate) async fn new<F>(script: impl Fn(Served) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let endpoint = Endpoint::Tcp(listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut number = 0;
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let served = Served { wire: Wire::new(stream), number, seen: Arc::clone(&noted) };
                tokio::spawn(script(served));
                number += 1;
            }
        });
        Self { endpoint, seen, task }
    }

    /// Notes every request and says `OK` to it.
    pub(crate) async fn recording() -> Self {
        Self::new(|mut served| async move {
            while served.request().await.is_some() {
                served.send(OK).await;
            }
        })
        .await
    }

    /// First lines and bodies of what was noted so far, which is then forgotten.
    pub(crate) fn take(&self) -> Vec<Message> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}
