//! Between a vault and its bucket: passes each request on, or has something happen to it.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A head is far shorter.
const HEAD_BYTES_MAX: u64 = 64 << 10;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    Passes,
    /// The server takes its time.
    Waits(Duration),
    /// It is answered with this status, and the server never sees it.
    Refused(u16),
    /// The connection ends in the middle of the request's body.
    CutBefore,
    /// The server has done it; the connection ends in the middle of the answer.
    CutAfter,
}

type Decide = Box<dyn FnMut(u64) -> Fate + Send>;

#[derive(Clone)]
pub struct Proxy {
    decide: Arc<Mutex<(u64, Decide)>>,
}

impl Proxy {
    /// Listens at `port` and passes everything on to `server`, for the life of this process.
    pub fn start(port: u16, server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let proxy = Self { decide: Arc::new(Mutex::new((0, Box::new(|_| Fate::Passes)))) };
        let its = proxy.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let its = its.clone();
                thread::spawn(move || drop(its.carry(&client, server)));
            }
        });
        proxy
    }

    /// From here on `decide` says what happens to each, counted from 0.
    pub fn now(&self, decide: impl FnMut(u64) -> Fate + Send + 'static) {
        *self.decide.lock().unwrap() = (0, Box::new(decide));
    }

    fn fate(&self) -> Fate {
        let mut decide = self.decide.lock().unwrap();
        let count = decide.0;
        decide.0 += 1;
        (decide.1)(count)
    }

    /// One request a connection.
    fn carry(&self, client: &TcpStream, server: u16) -> std::io::Result<()> {
        let mut from = BufReader::new(client);
        let mut to = client;
        let (mut head, mut length) = (Vec::new(), 0);
        loop {
            let before = head.len();
            if from.by_ref().take(HEAD_BYTES_MAX).read_until(b'\n', &mut head)? == 0 {
                return Ok(());
            }
            let line = String::from_utf8_lossy(&head[before..]).to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line == "\r\n" {
                break;
            }
        }
        let fate = self.fate();
        if fate == Fate::CutBefore {
            from.take(length / 2).read_to_end(&mut Vec::new())?;
            return client.shutdown(Shutdown::Both);
        }
        let mut body = Vec::new();
        from.take(length).read_to_end(&mut body)?;
        match fate {
            Fate::Refused(status) => {
                return write!(
                    to,
                    "HTTP/1.1 {status} Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                );
            }
            Fate::Waits(time) => thread::park_timeout(time),
            Fate::Passes | Fate::CutBefore | Fate::CutAfter => {}
        }
        let answer = ask(server, &head, &body)?;
        let sent = if fate == Fate::CutAfter { answer.len() / 2 } else { answer.len() };
        to.write_all(&answer[..sent])?;
        client.shutdown(Shutdown::Both)
    }
}

/// The whole answer of the server, which ends the connection behind it.
fn ask(server: u16, head: &[u8], body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, server))?;
    let end = head.len() - 2;
    server.write_all(&[&head[..end], b"Connection: close\r\n\r\n", body].concat())?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    Ok(answer)
}
