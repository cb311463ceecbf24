//! Waiting that ends in the end, for little: no timer per request, but a note of when its time is over, which the look
//! over a thread's connections reads a few times a second.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::meter::Millis;
use crate::worker::LOOK_EVERY;

/// Shorter waits get a timer of their own, so that they end on time.
pub(crate) const LONG: Duration = Duration::from_secs(5);

/// Those of one thread who wait.
#[derive(Debug)]
pub(crate) struct Patience {
    now: Arc<AtomicU32>,
    waiting: RefCell<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    places: Vec<Place>,
    /// Places that are free.
    free: Vec<usize>,
}

#[derive(Debug)]
struct Place {
    over: Millis,
    waker: Option<Waker>,
}

impl Patience {
    pub(crate) fn new(now: Arc<AtomicU32>) -> Self {
        Self { now, waiting: RefCell::default() }
    }

    /// `None` when `span` was over first: never early, and late by two looks at most.
    pub(crate) fn within<F: Future + Unpin>(&self, span: Duration, inner: F) -> Within<'_, F> {
        let millis = |span: Duration| u32::try_from(span.as_millis()).unwrap_or(u32::MAX / 2);
        // The coarse time may be a look behind.
        let over = self.now.load(Relaxed).wrapping_add(millis(span)).wrapping_add(millis(LOOK_EVERY));
        Within { patience: self, inner, over, place: None }
    }

    /// Wakes those whose time is over.
    pub(crate) fn look(&self) {
        let now = self.now.load(Relaxed);
        for place in &mut self.waiting.borrow_mut().places {
            if is_over(now, place.over)
                && let Some(waker) = place.waker.take()
            {
                waker.wake();
            }
        }
    }
}

const fn is_over(now: Millis, over: Millis) -> bool {
    // Of two times less than three weeks apart, the later one.
    now.wrapping_sub(over) < u32::MAX / 2
}

impl Waiting {
    fn enter(&mut self, place: Place) -> usize {
        if let Some(index) = self.free.pop() {
            self.places[index] = place;
            return index;
        }
        self.places.push(place);
        self.places.len() - 1
    }

    fn leave(&mut self, index: usize) {
        self.places[index].waker = None;
        self.free.push(index);
        if self.free.len() == self.places.len() {
            // Nobody is left: a crowd's memory is given back.
            *self = Self::default();
        }
    }
}

/// See [`Patience::within`].
#[derive(Debug)]
pub(crate) struct Within<'a, F> {
    patience: &'a Patience,
    inner: F,
    over: Millis,
    place: Option<usize>,
}

impl<F: Future + Unpin> Future for Within<'_, F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Poll::Ready(done) = Pin::new(&mut this.inner).poll(cx) {
            return Poll::Ready(Some(done));
        }
        if is_over(this.patience.now.load(Relaxed), this.over) {
            return Poll::Ready(None);
        }
        let mut waiting = this.patience.waiting.borrow_mut();
        match this.place {
            None => {
                let place = Place { over: this.over, waker: Some(cx.waker().clone()) };
                this.place = Some(waiting.enter(place));
            }
            Some(index) => match &mut waiting.places[index].waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            },
        }
        Poll::Pending
    }
}

impl<F> Drop for Within<'_, F> {
    fn drop(&mut self) {
        if let Some(index) = self.place {
            self.patience.waiting.borrow_mut().leave(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn patience() -> (Arc<AtomicU32>, Patience) {
        // Near the end of its range, so that it wraps.
        let now = Arc::new(AtomicU32::new(u32::MAX - 5_000));
        (Arc::clone(&now), Patience::new(now))
    }

    #[test]
    fn what_is_there_is_given_at_once_and_takes_no_place() {
        let (_, patience) = patience();
        let within = pin!(patience.within(Duration::from_secs(9), ready(7)));
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(within.poll(&mut cx), Poll::Ready(Some(7)));
        assert!(patience.waiting.borrow().places.is_empty());
    }

    #[test]
    fn time_is_over_once_and_never_early() {
        let (now, patience) = patience();
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let mut within = Box::pin(patience.within(Duration::from_secs(9), pending::<()>()));
        let pass = |millis: u32| {
            now.store(now.load(Relaxed).wrapping_add(millis), Relaxed);
            patience.look();
        };
        assert_eq!(within.as_mut().poll(&mut cx), Poll::Pending);
        pass(9_000);
        assert_eq!(count.0.load(Relaxed), 0);
        assert_eq!(within.as_mut().poll(&mut cx), Poll::Pending);
        pass(200);
        pass(200);
        assert_eq!(count.0.load(Relaxed), 1);
        assert_eq!(within.as_mut().poll(&mut cx), Poll::Ready(None));
        drop(within);
        assert!(patience.waiting.borrow().places.is_empty());
    }

    #[test]
    fn a_place_is_used_again() {
        let (_, patience) = patience();
        let mut cx = Context::from_waker(Waker::noop());
        let mut first = Box::pin(patience.within(Duration::from_secs(9), pending::<()>()));
        let mut second = Box::pin(patience.within(Duration::from_secs(9), pending::<()>()));
        assert!(first.as_mut().poll(&mut cx).is_pending() && second.as_mut().poll(&mut cx).is_pending());
        drop(first);
        let mut third = Box::pin(patience.within(Duration::from_secs(9), pending::<()>()));
        assert!(third.as_mut().poll(&mut cx).is_pending());
        assert_eq!(patience.waiting.borrow().places.len(), 2);
    }
}
