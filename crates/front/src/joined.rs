//! Small writes in one piece.
//!
//! A head and a small body come as two buffers. Put together on the stack they go out by `send`, which costs the kernel
//! less than `writev`; what is larger is not copied.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Up to here copying is cheaper than a second buffer.
const JOINED_BYTES_MAX: usize = 2048;

/// A connection whose small writes go out in one piece.
#[derive(Debug)]
pub(crate) struct Joined<T>(pub(crate) T);

impl<T: AsyncRead + Unpin> AsyncRead for Joined<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Joined<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = Pin::new(&mut self.0);
        if let [only] = bufs {
            return inner.poll_write(cx, only);
        }
        let mut space = [MaybeUninit::uninit(); JOINED_BYTES_MAX];
        let mut joined = ReadBuf::uninit(&mut space);
        for buf in bufs {
            if buf.len() > joined.remaining() {
                return inner.poll_write_vectored(cx, bufs);
            }
            joined.put_slice(buf);
        }
        inner.poll_write(cx, joined.filled())
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers in how many buffers each write came.
    #[derive(Default)]
    struct Wire {
        writes: Vec<(usize, Vec<u8>)>,
    }

    impl AsyncWrite for Wire {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.writes.push((1, buf.to_vec()));
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = bufs.iter().flat_map(|it| it.to_vec()).collect();
            let count = all.len();
            self.writes.push((bufs.len(), all));
            Poll::Ready(Ok(count))
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn small_ones_are_joined_and_large_ones_are_left_alone() {
        let mut wire = Joined(Wire::default());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut write = |parts: &[&[u8]]| {
            let parts: Vec<IoSlice<'_>> = parts.iter().map(|it| IoSlice::new(it)).collect();
            match Pin::new(&mut wire).poll_write_vectored(&mut cx, &parts) {
                Poll::Ready(Ok(count)) => count,
                Poll::Ready(Err(error)) => panic!("{error}"),
                Poll::Pending => panic!("it waits"),
            }
        };
        let large = [7; JOINED_BYTES_MAX];
        assert_eq!(write(&[b"head", b"body"]), 8);
        assert_eq!(write(&[b"head", &large]), 4 + JOINED_BYTES_MAX);
        assert_eq!(write(&[&large]), JOINED_BYTES_MAX);
        let shapes: Vec<(usize, usize)> =
            wire.0.writes.iter().map(|(count, all)| (*count, all.len())).collect();
        assert_eq!(shapes, [(1, 8), (2, 4 + JOINED_BYTES_MAX), (1, JOINED_BYTES_MAX)]);
        assert_eq!(wire.0.writes[0].1, b"headbody");
    }
}
