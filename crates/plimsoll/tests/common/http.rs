//! The smallest client that does: one request, one connection, blocking, with a deadline.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

/// Status and body.
pub type Answer = io::Result<(u16, String)>;

pub fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, "GET", path, "")
}

pub fn post(address: SocketAddr, path: &str, body: &str) -> Answer {
    ask(address, "POST", path, body)
}

fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&String::from_utf8_lossy(&answer))
}

fn parse(answer: &str) -> Answer {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, format!("no answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(broken)?;
    Ok((status, body.to_owned()))
}

/// One connection for many requests.
pub struct Kept {
    stream: BufReader<TcpStream>,
}

impl Kept {
    pub fn open(address: SocketAddr) -> Self {
        Self::connect(address).unwrap()
    }

    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Panics where the connection has ended.
    pub fn get(&mut self, path: &str) -> (u16, String) {
        let (answer, _) = self.ask("GET", path, "").unwrap();
        answer
    }

    /// The answer, and whether more may be asked.
    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> io::Result<((u16, String), bool)> {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: kept\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head)? == 0 {
                return Err(io::Error::other(format!("the connection ended after {head:?}")));
            }
        }
        let (status, _) = parse(&head)?;
        let head = head.to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|it| it.split("\r\n").next());
        let mut body = vec![0; length.and_then(|it| it.parse().ok()).expect("a length")];
        self.stream.read_exact(&mut body)?;
        Ok(((status, String::from_utf8_lossy(&body).into_owned()), !head.contains("connection: close")))
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
