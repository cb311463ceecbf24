//! One large body through the proxy, thrown away as it comes.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};

use crate::bench::front::ground::{LOAD_CORE, stay_on_core};
use crate::bench::front::sample::Achieved;
use crate::bench::front::upstream::{GIB, LARGE_PATH};
use crate::error::{Error, Result};

const SILENT_MAX: Duration = Duration::from_secs(10);
const HEAD_BYTES_MAX: usize = 8192;
const PIECE_BYTES: usize = 1 << 20;

/// On the load's core, in a thread of its own. What is done is counted in MiB.
pub(super) fn run(port: u16) -> Result<Achieved> {
    let thread = std::thread::spawn(move || {
        stay_on_core(LOAD_CORE)?;
        let begun = Instant::now();
        fetch(port).map_err(|error| Error::Check(format!("the large body: {error}")))?;
        let took = begun.elapsed();
        Ok(Achieved { done: GIB >> 20, took, p50: took, p99: took })
    });
    thread.join().unwrap_or_else(|_| Err(Error::Check("the reader of the large body panicked".into())))
}

fn fetch(port: u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(SILENT_MAX))?;
    write!(stream, "GET {LARGE_PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut left = GIB - body_begun(&mut stream)?;
    let mut piece = vec![0; PIECE_BYTES];
    while left > 0 {
        // TRUNC throws the bytes away inside the kernel: the reader is never the slowest.
        let (_, length) = recv(&stream, piece.as_mut_slice(), RecvFlags::TRUNC)?;
        if length == 0 {
            return Err(std::io::Error::other(format!("it broke off with {left} bytes to come")));
        }
        left = left.saturating_sub(length as u64);
    }
    Ok(())
}

/// Reads the head; how many bytes of the body came along.
fn body_begun(stream: &mut TcpStream) -> std::io::Result<u64> {
    let mut head = Vec::new();
    let mut piece = [0; HEAD_BYTES_MAX];
    loop {
        let length = stream.read(&mut piece)?;
        head.extend_from_slice(&piece[..length]);
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            if !head.starts_with(b"HTTP/1.1 200") {
                return Err(std::io::Error::other(String::from_utf8_lossy(&head[..end]).into_owned()));
            }
            return Ok((head.len() - end - 4) as u64);
        }
        if length == 0 || head.len() > HEAD_BYTES_MAX {
            return Err(std::io::Error::other("no head of an answer came"));
        }
    }
}
