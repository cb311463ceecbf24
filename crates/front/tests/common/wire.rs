//! HTTP/1.1 as bytes, for both ends: nothing is repaired, nothing is hidden.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::soon;

/// What is read at a time, in bytes.
const PIECE: usize = 64 * 1024;

/// A connection with what was read from it and not used yet.
pub(crate) struct Wire<T> {
    pub(crate) io: T,
    read: Vec<u8>,
}

/// One message as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// With its last line end, without the empty line.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// After a chunked body.
    pub(crate) trailers: String,
}

impl Message {
    /// The request's or status line.
    pub(crate) fn first(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// Of a response; 0 where there is none.
    pub(crate) fn status(&self) -> u16 {
        self.first().split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or(0)
    }

    /// Every value of a header, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.filter(|it| it.0.eq_ignore_ascii_case(name)).map(|it| it.1.trim()).collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn length(&self) -> Option<usize> {
        self.get("content-length").map(|it| it.parse().unwrap())
    }

    fn is_chunked(&self) -> bool {
        self.get("transfer-encoding").is_some_and(|it| it.eq_ignore_ascii_case("chunked"))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Wire<T> {
    pub(crate) const fn new(io: T) -> Self {
        Self { io, read: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon("bytes to be taken", self.io.write_all(bytes.as_ref())).await.unwrap();
        soon("bytes to be taken", self.io.flush()).await.unwrap();
    }

    /// The same where the other side may have gone.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        soon("bytes to be taken", self.io.write_all(bytes.as_ref())).await?;
        soon("bytes to be taken", self.io.flush()).await
    }

    async fn more(&mut self) -> bool {
        self.read.reserve(PIECE);
        soon("bytes to come", self.io.read_buf(&mut self.read)).await.unwrap_or(0) > 0
    }

    /// Up to and with `end`; `None` where the connection ends before that.
    async fn up_to(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|it| it == end) {
                return Some(self.read.drain(..at + end.len()).collect());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.read.len() < count {
            if !self.more().await {
                return None;
            }
        }
        Some(self.read.drain(..count).collect())
    }

    /// A head alone.
    pub(crate) async fn head(&mut self) -> Option<Message> {
        let mut bytes = self.up_to(b"\r\n\r\n").await?;
        bytes.truncate(bytes.len() - 2);
        let head = String::from_utf8_lossy(&bytes).into_owned();
        Some(Message { head, ..Message::default() })
    }

    /// A request with its body.
    pub(crate) async fn request(&mut self) -> Option<Message> {
        let mut message = self.head().await?;
        if message.is_chunked() {
            self.chunks(&mut message).await?;
        } else if let Some(length) = message.length() {
            message.body = self.exactly(length).await?;
        }
        Some(message)
    }

    /// The final response to a request that was no HEAD.
    pub(crate) async fn response(&mut self) -> Option<Message> {
        let mut message = self.head().await?;
        while message.status() / 100 == 1 && message.status() != 101 {
            message = self.head().await?;
        }
        match message.status() {
            101 | 204 | 304 => {}
            _ if message.is_chunked() => self.chunks(&mut message).await?,
            _ => match message.length() {
                Some(length) => message.body = self.exactly(length).await?,
                None => message.body = self.rest().await,
            },
        }
        Some(message)
    }

    /// One chunk; empty at the end.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.up_to(b"\r\n").await?;
        let size = std::str::from_utf8(&line).unwrap().trim_end().split(';').next().unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return Some(Vec::new());
        }
        let mut chunk = self.exactly(size + 2).await?;
        assert_eq!(chunk.split_off(size), b"\r\n");
        Some(chunk)
    }

    async fn chunks(&mut self, message: &mut Message) -> Option<()> {
        loop {
            let chunk = self.chunk().await?;
            if chunk.is_empty() {
                break;
            }
            message.body.extend(chunk);
        }
        loop {
            let line = self.up_to(b"\r\n").await?;
            if line == b"\r\n" {
                return Some(());
            }
            message.trailers.push_str(std::str::from_utf8(&line).unwrap());
        }
    }

    /// Everything until the other side ends, however it ends.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }

    /// Reads so many bytes, or up to the end, and keeps nothing; how many there were.
    pub(crate) async fn pour(&mut self, bytes: usize) -> usize {
        let mut came = self.read.len();
        assert!(came <= bytes, "more came than should have");
        self.read.clear();
        let mut scratch = vec![0; 4 * PIECE];
        while came < bytes {
            let most = scratch.len().min(bytes - came);
            match soon("bytes to come", self.io.read(&mut scratch[..most])).await {
                Ok(0) | Err(_) => break,
                Ok(count) => came += count,
            }
        }
        came
    }

    /// Reads on until the other side ends, and keeps nothing.
    pub(crate) async fn forget(&mut self) {
        self.pour(usize::MAX).await;
    }

    pub(crate) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        self.exactly(count).await.unwrap_or_default()
    }
}
