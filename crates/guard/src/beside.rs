//! Work that blocks, on a thread beside the one that guards.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::{JoinHandle, spawn_blocking};

/// The result of the work; `None` cannot be seen by whoever was given the handle.
pub(crate) type Handle<T> = JoinHandle<Option<T>>;

/// Starts `work` beside the caller, or gives it back where the host has no thread for it.
///
/// In that case tokio panics, and has queued the work all the same: it would be done later, once a thread can be had.
/// So the work is taken out again.
pub(crate) fn start<T, W>(work: W) -> Result<Handle<T>, W>
where
    T: Send + 'static,
    W: FnOnce() -> T + Send + 'static,
{
    let ours = Arc::new(Mutex::new(Some(work)));
    let theirs = Arc::clone(&ours);
    let started = catch_unwind(AssertUnwindSafe(|| spawn_blocking(move || take(&theirs).map(|work| work()))));
    match started {
        Ok(handle) => Ok(handle),
        Err(panic) => Err(take(&ours).unwrap_or_else(|| std::panic::resume_unwind(panic))),
    }
}

fn take<W>(work: &Mutex<Option<W>>) -> Option<W> {
    work.lock().unwrap_or_else(PoisonError::into_inner).take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_beside_and_its_result_comes_back() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let here = std::thread::current().id();
        let done = runtime.block_on(async {
            start(move || std::thread::current().id() != here).unwrap_or_else(|_| panic!("a thread")).await
        });
        assert_eq!(done.unwrap(), Some(true));
    }

    #[test]
    fn work_that_cannot_be_started_is_given_back_undone() {
        // Without a runtime there is no thread either.
        let given_back = start(|| 7).err().map(|work| work());
        assert_eq!(given_back, Some(7));
    }
}
