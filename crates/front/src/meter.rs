//! What one client connection is doing, so that silent, dripping and stalled ones are found by looking now and then.
//!
//! No timer per connection or request: each notes what it waits for and since when, and one look over all of a thread's
//! connections a few times a second ends those that are over their time. Ten thousand idle ones cost a walk over ten
//! thousand words.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::config::Limits;

/// What the other side owes us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Waits {
    /// Between requests, or before the first.
    ForRequest = 0,
    /// A request's head has begun.
    ForHead = 1,
    /// A request is being dealt with; nothing is owed by the client.
    Nothing = 2,
    /// The next bytes of its body.
    ForBody = 3,
}

/// Milliseconds of the front's own clock, wide enough for seven weeks; differences are taken with wrapping.
pub(crate) type Millis = u32;

#[derive(Debug)]
pub(crate) struct Meter {
    waits: AtomicU8,
    since: AtomicU32,
    /// Since when the client takes no more bytes, plus one; 0 while it does.
    blocked: AtomicU32,
    /// How long the body has been waited for in all, up to the wait of now, and how much of it came. What passes while
    /// nobody reads it is not its client's time.
    body_waited: AtomicU32,
    body_bytes: AtomicU64,
    /// Requests being dealt with: one at most on HTTP/1, several on HTTP/2.
    busy: AtomicU32,
    /// What the client owes each of its streams; HTTP/2 only, where one that goes on must not hide one that does not.
    debts: Mutex<Vec<Debt>>,
    debt_ids: AtomicU32,
    /// Streams that have ended, and of them those that the client called off at once.
    streams: AtomicU32,
    called_off: AtomicU32,
    /// More of a request may come although nobody wants it any more.
    unfinished: AtomicBool,
    /// Its end has begun.
    closing: AtomicBool,
    /// Who serves it, to be woken when it may rest; and whether it is known, which is asked far more often.
    server: Mutex<Option<Waker>>,
    server_known: AtomicBool,
    now: Arc<AtomicU32>,
}

/// What one stream waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owed {
    /// The next bytes of its body, after so long a wait for so many.
    Body { waited: Millis, bytes: u64 },
    /// Room for the next bytes of its answer.
    Window,
}

#[derive(Clone, Copy, Debug)]
struct Debt {
    id: u32,
    since: Millis,
    owed: Owed,
}

/// Why a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    Idle,
    Head,
    Body,
    BodySlow,
    Write,
    /// Asks and calls off, again and again.
    Flood,
}

/// A connection that is silent for so long gives its buffers back.
const REST_AFTER: Duration = Duration::from_secs(1);

/// So many streams called off, and more than not, are no change of mind.
const CALLED_OFF_MAX: u32 = 500;

impl Meter {
    pub(crate) fn new(now: Arc<AtomicU32>) -> Self {
        let since = now.load(Relaxed);
        Self {
            waits: AtomicU8::new(Waits::ForRequest as u8),
            since: AtomicU32::new(since),
            blocked: AtomicU32::new(0),
            body_waited: AtomicU32::new(0),
            body_bytes: AtomicU64::new(0),
            busy: AtomicU32::new(0),
            debts: Mutex::new(Vec::new()),
            debt_ids: AtomicU32::new(0),
            streams: AtomicU32::new(0),
            called_off: AtomicU32::new(0),
            unfinished: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            server: Mutex::new(None),
            server_known: AtomicBool::new(false),
            now,
        }
    }

    pub(crate) fn now(&self) -> Millis {
        self.now.load(Relaxed)
    }

    /// A name for what one stream may come to owe.
    pub(crate) fn debt_id(&self) -> u32 {
        self.debt_ids.fetch_add(1, Relaxed)
    }

    pub(crate) fn owes(&self, id: u32, owed: Owed) {
        let mut debts = self.debts.lock().unwrap_or_else(PoisonError::into_inner);
        if debts.iter().all(|debt| debt.id != id) {
            debts.push(Debt { id, since: self.now(), owed });
        }
    }

    pub(crate) fn paid(&self, id: u32) {
        self.debts.lock().unwrap_or_else(PoisonError::into_inner).retain(|debt| debt.id != id);
    }

    /// A stream has ended. `called_off`: at once, and by its client.
    pub(crate) fn stream_ended(&self, called_off: bool) {
        self.streams.fetch_add(1, Relaxed);
        if called_off {
            self.called_off.fetch_add(1, Relaxed);
        }
    }

    /// Its request was answered before all of it was read.
    pub(crate) fn unfinished(&self) {
        self.unfinished.store(true, Relaxed);
    }

    fn set(&self, waits: Waits) {
        self.waits.store(waits as u8, Relaxed);
        self.since.store(self.now.load(Relaxed), Relaxed);
    }

    /// A request's head is here.
    pub(crate) fn request_began(&self) {
        self.busy.fetch_add(1, Relaxed);
        self.set(Waits::Nothing);
    }

    /// Its response is with the client.
    pub(crate) fn request_ended(&self) {
        if self.busy.fetch_sub(1, Relaxed) == 1 {
            self.set(Waits::ForRequest);
        }
    }

    /// The body's next bytes are wanted and not there.
    pub(crate) fn body_wanted(&self) {
        if self.waits.load(Relaxed) != Waits::ForBody as u8 {
            self.set(Waits::ForBody);
        }
    }

    pub(crate) fn body_began(&self) {
        self.body_waited.store(0, Relaxed);
        self.body_bytes.store(0, Relaxed);
    }

    pub(crate) fn body_came(&self, bytes: usize) {
        self.body_bytes.fetch_add(bytes as u64, Relaxed);
        if self.waits.load(Relaxed) == Waits::ForBody as u8 {
            self.body_waited.fetch_add(self.now().wrapping_sub(self.since.load(Relaxed)), Relaxed);
            self.set(Waits::Nothing);
        }
    }

    fn read_some(&self) {
        // The first bytes after silence are the beginning of a head.
        if self.waits.load(Relaxed) == Waits::ForRequest as u8 && self.busy.load(Relaxed) == 0 {
            self.set(Waits::ForHead);
        }
    }

    fn wrote(&self, done: bool) {
        let now = self.now.load(Relaxed);
        if done {
            if self.blocked.load(Relaxed) != 0 {
                self.blocked.store(0, Relaxed);
            }
        } else if self.blocked.load(Relaxed) == 0 {
            self.blocked.store(now.wrapping_add(1).max(1), Relaxed);
        }
    }

    /// Nothing has been under way for a while, in either direction. Until then its server is remembered.
    pub(crate) fn may_rest(&self, server: &Waker) -> bool {
        if self.is_at_rest() {
            self.forget_server();
            return true;
        }
        if !self.server_known.load(Relaxed) {
            *self.server() = Some(server.clone());
            self.server_known.store(true, Relaxed);
        }
        false
    }

    /// Wakes its server if it may rest now.
    pub(crate) fn look(&self) {
        if self.is_at_rest()
            && let Some(server) = self.forget_server()
        {
            server.wake();
        }
    }

    fn forget_server(&self) -> Option<Waker> {
        self.server_known.store(false, Relaxed);
        self.server().take()
    }

    fn server(&self) -> MutexGuard<'_, Option<Waker>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_at_rest(&self) -> bool {
        self.waits.load(Relaxed) == Waits::ForRequest as u8
            && self.busy.load(Relaxed) == 0
            && self.blocked.load(Relaxed) == 0
            && !self.closing.load(Relaxed)
            && u128::from(self.now().wrapping_sub(self.since.load(Relaxed))) >= REST_AFTER.as_millis()
    }

    /// Whether it has had its time. HTTP/2 has frames of its own between requests, so only silence counts there.
    pub(crate) fn overdue(&self, limits: &Limits, http2: bool) -> Option<Overdue> {
        let now = self.now.load(Relaxed);
        let passed = |since: Millis| u64::from(now.wrapping_sub(since));
        let over = |since: Millis, most: std::time::Duration| u128::from(passed(since)) >= most.as_millis();
        let blocked = self.blocked.load(Relaxed);
        if blocked != 0 && over(blocked.wrapping_sub(1), limits.write_stall) {
            return Some(Overdue::Write);
        }
        let body = |since: Millis, waited: Millis, bytes: u64| {
            if over(since, limits.body_idle) {
                return Some(Overdue::Body);
            }
            let waited = u64::from(waited) + passed(since);
            let counts = u128::from(waited) >= limits.body_rate_after.as_millis();
            (counts && bytes < limits.body_rate_min * waited / 1000).then_some(Overdue::BodySlow)
        };
        let called_off = self.called_off.load(Relaxed);
        if called_off >= CALLED_OFF_MAX && called_off > self.streams.load(Relaxed) / 2 {
            return Some(Overdue::Flood);
        }
        let since = self.since.load(Relaxed);
        let waits = self.waits.load(Relaxed);
        if http2 && self.busy.load(Relaxed) > 0 {
            let debts = self.debts.lock().unwrap_or_else(PoisonError::into_inner);
            return debts.iter().find_map(|debt| match debt.owed {
                Owed::Body { waited, bytes } => body(debt.since, waited, bytes),
                Owed::Window => over(debt.since, limits.write_stall).then_some(Overdue::Write),
            });
        }
        // On HTTP/2 the last of these is said of a connection alone that was shut down.
        if waits == Waits::ForRequest as u8 || (http2 && waits != Waits::ForBody as u8) {
            return over(since, limits.idle).then_some(Overdue::Idle);
        }
        if waits == Waits::ForHead as u8 {
            return over(since, limits.head_wait).then_some(Overdue::Head);
        }
        if waits == Waits::ForBody as u8 {
            return body(since, self.body_waited.load(Relaxed), self.body_bytes.load(Relaxed));
        }
        None
    }
}

/// A client's connection with its meter.
#[derive(Debug)]
pub(crate) struct Metered<T> {
    io: T,
    meter: Arc<Meter>,
    /// What a client that was refused may still send before its connection is closed on it.
    linger_bytes_max: usize,
    /// Something was written and is not out yet.
    flushing: bool,
    /// Since it was shut down: how much came that nobody wanted.
    lingered_bytes: Option<usize>,
    /// Read already, and to be read again.
    unread: BytesMut,
}

/// What is read of a connection that was at rest: most heads are smaller.
const FIRST_BYTES: usize = 2048;

impl<T> Metered<T> {
    pub(crate) fn new(io: T, meter: Arc<Meter>, linger_bytes_max: usize) -> Self {
        Self { io, meter, linger_bytes_max, flushing: false, lingered_bytes: None, unread: BytesMut::new() }
    }

    /// What was read of it is to be read again.
    pub(crate) fn unread(&mut self, bytes: BytesMut) {
        self.unread = bytes;
    }
}

impl<T: AsyncRead + Unpin> Metered<T> {
    /// Whether there is more to read, once that is known.
    pub(crate) fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.unread.is_empty() {
            let mut space = [MaybeUninit::uninit(); FIRST_BYTES];
            let mut buffer = ReadBuf::uninit(&mut space);
            if ready!(Pin::new(&mut *self).poll_read(cx, &mut buffer)).is_err() {
                return Poll::Ready(false);
            }
            self.unread.extend_from_slice(buffer.filled());
        }
        Poll::Ready(!self.unread.is_empty())
    }

    /// Reads what still comes, and forgets it. A connection that is closed with something unread is reset by the kernel,
    /// and its client may never see the answer that it was sent.
    fn linger(&mut self, cx: &mut Context<'_>, mut bytes: usize) -> Poll<()> {
        let mut scratch = [0; 8 * 1024];
        while bytes < self.linger_bytes_max {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => bytes += buffer.filled().len(),
                Poll::Pending if bytes > 0 || self.meter.unfinished.load(Relaxed) => {
                    self.lingered_bytes = Some(bytes);
                    self.meter.body_wanted();
                    return Poll::Pending;
                }
                Poll::Ready(_) | Poll::Pending => break,
            }
        }
        Poll::Ready(())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let taken = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread.split_to(taken));
            self.meter.read_some();
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let done = Pin::new(&mut self.io).poll_read(cx, buf);
        if done.is_ready() && buf.filled().len() > before {
            self.meter.read_some();
        }
        done
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.io).poll_write(cx, buf);
        self.meter.wrote(done.is_ready());
        done
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.meter.wrote(done.is_ready());
        done
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.io).poll_flush(cx);
        // TLS has a buffer of its own, and takes into it what its client does not.
        if done.is_pending() || self.flushing {
            self.flushing = done.is_pending();
            self.meter.wrote(done.is_ready());
        }
        done
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingered_bytes.is_none() {
            self.meter.closing.store(true, Relaxed);
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            self.lingered_bytes = Some(0);
        }
        let bytes = self.lingered_bytes.unwrap_or_default();
        self.linger(cx, bytes).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        now: Arc<AtomicU32>,
        meter: Meter,
    }

    impl World {
        fn new() -> Self {
            // Near the end of its range, so that it wraps in the middle of every test.
            let now = Arc::new(AtomicU32::new(u32::MAX - 5_000));
            Self { meter: Meter::new(Arc::clone(&now)), now }
        }

        fn pass(&self, millis: u32) {
            self.now.store(self.now.load(Relaxed).wrapping_add(millis), Relaxed);
        }

        fn overdue(&self) -> Option<Overdue> {
            self.meter.overdue(&Limits::default(), false)
        }
    }

    #[test]
    fn silence_has_a_minute_and_a_head_ten_seconds_from_its_first_byte() {
        let world = World::new();
        world.pass(59_000);
        assert_eq!(world.overdue(), None);
        world.meter.read_some();
        world.pass(9_000);
        // A byte now and then buys no time.
        world.meter.read_some();
        assert_eq!(world.overdue(), None);
        world.pass(1_000);
        assert_eq!(world.overdue(), Some(Overdue::Head));
        let silent = World::new();
        silent.pass(60_000);
        assert_eq!(silent.overdue(), Some(Overdue::Idle));
    }

    #[test]
    fn only_who_has_been_silent_in_both_directions_may_rest() {
        let world = World::new();
        let may_rest = || world.meter.may_rest(Waker::noop());
        assert!(!may_rest());
        world.pass(999);
        assert!(!may_rest());
        world.pass(1);
        assert!(may_rest());
        world.meter.wrote(false);
        assert!(!may_rest());
        world.meter.wrote(true);
        world.meter.request_began();
        world.pass(5_000);
        assert!(!may_rest());
        world.meter.request_ended();
        assert!(!may_rest());
        world.pass(5_000);
        assert!(may_rest());
        world.meter.read_some();
        world.pass(5_000);
        assert!(!may_rest());
    }

    #[test]
    fn who_serves_it_is_woken_once_and_only_to_rest() {
        struct Count(AtomicU32);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Relaxed);
            }
        }
        let count = Arc::new(Count(AtomicU32::new(0)));
        let world = World::new();
        assert!(!world.meter.may_rest(&Waker::from(Arc::clone(&count))));
        world.meter.look();
        assert_eq!(count.0.load(Relaxed), 0);
        world.pass(1_000);
        world.meter.look();
        world.meter.look();
        assert_eq!(count.0.load(Relaxed), 1);
    }

    #[test]
    fn a_request_that_is_held_owes_nothing() {
        let world = World::new();
        world.meter.request_began();
        world.pass(600_000);
        assert_eq!(world.overdue(), None);
        world.meter.request_ended();
        assert_eq!(world.overdue(), None);
        world.pass(60_000);
        assert_eq!(world.overdue(), Some(Overdue::Idle));
    }

    #[test]
    fn a_body_may_pause_but_not_for_long_and_not_drip() {
        let world = World::new();
        world.meter.request_began();
        world.meter.body_began();
        world.meter.body_wanted();
        world.pass(9_000);
        world.meter.body_came(100);
        world.meter.body_wanted();
        assert_eq!(world.overdue(), None);
        world.pass(2_000);
        assert_eq!(world.overdue(), Some(Overdue::BodySlow));
        let still = World::new();
        still.meter.request_began();
        still.meter.body_began();
        still.meter.body_came(1 << 30);
        still.meter.body_wanted();
        still.pass(29_000);
        assert_eq!(still.overdue(), None);
        still.pass(1_000);
        assert_eq!(still.overdue(), Some(Overdue::Body));
    }

    #[test]
    fn a_body_that_nobody_reads_is_not_slow() {
        let world = World::new();
        world.meter.request_began();
        world.meter.body_began();
        world.pass(60_000);
        world.meter.body_wanted();
        assert_eq!(world.overdue(), None);
        world.pass(9_000);
        world.meter.body_came(100);
        world.pass(60_000);
        world.meter.body_wanted();
        assert_eq!(world.overdue(), None);
        world.pass(1_000);
        assert_eq!(world.overdue(), Some(Overdue::BodySlow));
    }

    #[test]
    fn one_stream_that_goes_on_does_not_hide_one_that_does_not() {
        let world = World::new();
        let overdue = || world.meter.overdue(&Limits::default(), true);
        world.meter.request_began();
        world.meter.request_began();
        let (stalled, moving) = (world.meter.debt_id(), world.meter.debt_id());
        world.meter.owes(stalled, Owed::Window);
        for _ in 0..29 {
            world.meter.owes(moving, Owed::Window);
            world.pass(1_000);
            world.meter.paid(moving);
            assert_eq!(overdue(), None);
        }
        world.pass(1_000);
        assert_eq!(overdue(), Some(Overdue::Write));
        world.meter.paid(stalled);
        assert_eq!(overdue(), None);
        world.meter.owes(stalled, Owed::Body { waited: 9_000, bytes: 100 });
        assert_eq!(overdue(), None);
        world.pass(1_000);
        assert_eq!(overdue(), Some(Overdue::BodySlow));
    }

    #[test]
    fn a_client_that_takes_nothing_is_let_go() {
        let world = World::new();
        world.meter.request_began();
        world.meter.wrote(false);
        world.pass(29_999);
        assert_eq!(world.overdue(), None);
        world.pass(1);
        assert_eq!(world.overdue(), Some(Overdue::Write));
        world.meter.wrote(true);
        assert_eq!(world.overdue(), None);
    }
}
