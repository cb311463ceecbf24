//! Between the pump and the shelf: bounded, so that a disk that hangs costs output and nothing else.

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::LogBounds;
use super::pump::QUEUE_KEPT;

/// Lines waiting for the disk, of all services together.
const BYTES_MAX: usize = 4 << 20;
/// Lines of one service are handed over in pieces of about this size.
const CHUNK_BYTES: usize = 128 << 10;
/// A disk that is merely busy is waited for this long, unless it has just been waited for in vain.
const PATIENCE: Duration = Duration::from_millis(20);

/// A series of files, as pump and shelf call it.
pub(super) type SeriesId = u32;

pub(super) enum Item {
    /// A service begins, or its bounds have changed.
    Open {
        series: SeriesId,
        name: Arc<str>,
        bounds: LogBounds,
    },
    Lines {
        series: SeriesId,
        lines: Vec<u8>,
    },
    /// No instance of it prints any more.
    Close {
        series: SeriesId,
    },
    /// All that came before has been written when this is answered.
    Flush(SyncSender<()>),
    Stop,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    work: Condvar,
    room: Condvar,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    /// Of lines.
    bytes: usize,
    /// Was waited for in vain; until it moves again nobody waits.
    is_stuck: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Queue")
            .field("items", &self.items.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands lines over; false when there is no room for them.
    pub(super) fn put_lines(&self, series: SeriesId, lines: &[u8]) -> bool {
        let mut queue = self.lock();
        if queue.bytes + lines.len() > BYTES_MAX && !queue.is_stuck {
            let full = |queue: &mut Queue| queue.bytes + lines.len() > BYTES_MAX;
            let waited = self.room.wait_timeout_while(queue, PATIENCE, full);
            let (mut now, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            now.is_stuck = timeout.timed_out();
            queue = now;
        }
        if queue.bytes + lines.len() > BYTES_MAX {
            return false;
        }
        queue.bytes += lines.len();
        match queue.items.back_mut() {
            Some(Item::Lines { series: last, lines: before })
                if *last == series && before.len() + lines.len() <= CHUNK_BYTES =>
            {
                before.extend_from_slice(lines);
            }
            _ => queue.items.push_back(Item::Lines { series, lines: lines.to_vec() }),
        }
        self.work.notify_one();
        true
    }

    /// For everything else: there are a few of them per instance, so they need no bound of their own.
    pub(super) fn put(&self, item: Item) {
        self.lock().items.push_back(item);
        self.work.notify_one();
    }

    /// For the shelf: the next item, after at most `within`.
    pub(super) fn take(&self, within: Duration) -> Option<Item> {
        let queue = self.lock();
        let waited = self.work.wait_timeout_while(queue, within, |queue| queue.items.is_empty());
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let item = queue.items.pop_front()?;
        if queue.items.is_empty() {
            queue.items.shrink_to(QUEUE_KEPT);
        }
        if let Item::Lines { lines, .. } = &item {
            queue.bytes -= lines.len();
            queue.is_stuck = false;
            self.room.notify_one();
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_hangs_is_waited_for_once_and_costs_no_more_than_its_bound() {
        let outbox = Outbox::default();
        let lines = vec![b'x'; 64 << 10];
        let taken = (0..1000).filter(|_| outbox.put_lines(0, &lines)).count();
        assert_eq!(taken, BYTES_MAX / lines.len());
        assert!(outbox.lock().is_stuck);
        assert!(outbox.take(Duration::ZERO).is_some());
        assert!(outbox.put_lines(0, &lines), "there is room again");
    }

    #[test]
    fn lines_of_one_service_are_put_together_in_their_order() {
        let outbox = Outbox::default();
        for (series, lines) in [(1, b"a\n"), (1, b"b\n"), (2, b"c\n"), (1, b"d\n")] {
            assert!(outbox.put_lines(series, lines));
        }
        let mut found = Vec::new();
        while let Some(Item::Lines { series, lines }) = outbox.take(Duration::ZERO) {
            found.push((series, String::from_utf8(lines).unwrap()));
        }
        assert_eq!(found, [(1, "a\nb\n".into()), (2, "c\n".into()), (1, "d\n".into())]);
    }
}
