//! Very many connections at once, from several loopback addresses, because each has only so many ports.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::error::{Error, Result};

const ADDRESSES: usize = 8;
const CONNECTING_AT_ONCE: usize = 100;
const ANSWER_BYTES_MAX: usize = 16 * 1024;
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Open connections, each with what it has yet to be answered.
#[derive(Debug)]
pub(super) struct Crowd {
    runtime: Runtime,
    streams: Vec<TcpStream>,
}

/// How a crowd's requests ended.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Answers {
    pub(super) well: u64,
    /// Not with 200, or not at all.
    pub(super) badly: u64,
    /// When the first and the last came, counted from the beginning of the wait.
    pub(super) first: Option<Duration>,
    pub(super) last: Option<Duration>,
}

impl Crowd {
    /// So many connections, each of which sends the request; what is answered is left to be read.
    pub(super) fn send(port: u16, size: usize, request: &'static [u8]) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Error::file("start", "the runtime"))?;
        let streams = runtime.block_on(send_all(port, size, request));
        let streams =
            streams.map_err(|error| Error::Check(format!("{size} connections to port {port}: {error}")))?;
        Ok(Self { runtime, streams })
    }

    /// How many have been answered or closed; nothing is read.
    pub(super) fn answered(&self) -> usize {
        let peek = |stream: &TcpStream| {
            let mut byte = [0; 1];
            !matches!(
                rustix::net::recv(stream, byte.as_mut_slice(), peeking()),
                Err(rustix::io::Errno::AGAIN)
            )
        };
        self.streams.iter().filter(|stream| peek(stream)).count()
    }

    /// Reads one answer on each connection; the connections stay open where the other side leaves them.
    pub(super) fn answers(&mut self, within: Duration) -> Answers {
        let streams = std::mem::take(&mut self.streams);
        let (answers, streams) = self.runtime.block_on(read_all(streams, within));
        self.streams = streams;
        answers
    }
}

fn peeking() -> rustix::net::RecvFlags {
    rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT
}

async fn send_all(port: u16, size: usize, request: &'static [u8]) -> std::io::Result<Vec<TcpStream>> {
    let mut connecting = JoinSet::new();
    let mut streams = Vec::with_capacity(size);
    for number in 0..size {
        if connecting.len() >= CONNECTING_AT_ONCE {
            streams.push(joined(&mut connecting).await?);
        }
        let last = u8::try_from(2 + number % ADDRESSES).unwrap_or(2);
        connecting.spawn(async move {
            let socket = TcpSocket::new_v4()?;
            socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into())?;
            let mut stream = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
            stream.write_all(request).await?;
            Ok(stream)
        });
    }
    while !connecting.is_empty() {
        streams.push(joined(&mut connecting).await?);
    }
    Ok(streams)
}

async fn joined(connecting: &mut JoinSet<std::io::Result<TcpStream>>) -> std::io::Result<TcpStream> {
    connecting
        .join_next()
        .await
        .unwrap_or_else(|| unreachable!("it was not empty"))
        .map_err(std::io::Error::other)?
}

async fn read_all(streams: Vec<TcpStream>, within: Duration) -> (Answers, Vec<TcpStream>) {
    let begun = Instant::now();
    let mut reading = JoinSet::new();
    for mut stream in streams {
        reading.spawn(async move {
            let well = matches!(tokio::time::timeout(within, read_one(&mut stream)).await, Ok(Ok(true)));
            (well, begun.elapsed(), stream)
        });
    }
    let (mut answers, mut streams) = (Answers::default(), Vec::new());
    while let Some(read) = reading.join_next().await {
        let Ok((well, after, stream)) = read else { continue };
        if well {
            answers.well += 1;
            answers.first = Some(answers.first.map_or(after, |first| first.min(after)));
            answers.last = Some(answers.last.map_or(after, |last| last.max(after)));
            streams.push(stream);
        } else {
            answers.badly += 1;
        }
    }
    (answers, streams)
}

/// One whole answer; whether it is a 200.
async fn read_one(stream: &mut TcpStream) -> std::io::Result<bool> {
    let mut answer = Vec::new();
    let mut piece = [0; 2048];
    loop {
        let length = stream.read(&mut piece).await?;
        answer.extend_from_slice(&piece[..length]);
        if is_whole(&answer) {
            return Ok(answer.starts_with(b"HTTP/1.1 200"));
        }
        if length == 0 || answer.len() > ANSWER_BYTES_MAX {
            return Ok(false);
        }
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| answer.len() >= end + 4 + length)
}

/// One request on a connection of its own, from when it was due; `None` where it was not answered with 200.
pub(super) async fn one(port: u16, request: &'static [u8]) -> Option<()> {
    let exchange = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(request).await?;
        read_one(&mut stream).await
    };
    matches!(tokio::time::timeout(ANSWER_WITHIN, exchange).await, Ok(Ok(true))).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_body() {
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"));
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na"));
        assert!(is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"));
        assert!(is_whole(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
    }
}
