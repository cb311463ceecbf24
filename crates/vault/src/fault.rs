//! Where writing can fail: each step of each write of the vault passes here. Tests, built with the feature `faults`, make
//! any of them fail; without it this is nothing.

/// One more step is about to be taken.
#[cfg(not(feature = "faults"))]
#[expect(clippy::unnecessary_wraps, reason = "with the feature it can fail")]
pub(crate) fn step() -> std::io::Result<()> {
    Ok(())
}

/// What is armed for the thread that starts others, so that it holds for those too.
#[cfg(not(feature = "faults"))]
#[derive(Clone)]
pub(crate) struct Shared;

#[cfg(not(feature = "faults"))]
impl Shared {
    pub(crate) const fn of_this_thread() -> Self {
        Self
    }

    #[expect(clippy::unused_self, reason = "with the feature it is what is taken over")]
    pub(crate) const fn take_over(self) {}
}

#[cfg(feature = "faults")]
pub use armed::{Fault, arm, disarm, has_failed};
#[cfg(feature = "faults")]
pub(crate) use armed::{Shared, step};

#[cfg(feature = "faults")]
mod armed {
    use std::cell::RefCell;
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    /// What happens at a step, counted from 0 on.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Fault {
        /// This one fails, and the next one does not.
        At(u64),
        /// This one and all that follow: the disk is full from there on, or the process is gone.
        From(u64),
    }

    #[derive(Debug)]
    struct Armed {
        fault: Fault,
        taken: AtomicU64,
    }

    impl Armed {
        fn has_failed(&self) -> bool {
            let (Fault::At(step) | Fault::From(step)) = self.fault;
            self.taken.load(Relaxed) > step
        }
    }

    /// What is armed for the thread that starts others, so that it holds for those too.
    #[derive(Clone)]
    pub(crate) struct Shared(Option<Arc<Armed>>);

    impl Shared {
        pub(crate) fn of_this_thread() -> Self {
            Self(ARMED.with_borrow(Clone::clone))
        }

        pub(crate) fn take_over(self) {
            ARMED.set(self.0);
        }
    }

    thread_local! {
        static ARMED: RefCell<Option<Arc<Armed>>> = const { RefCell::new(None) };
    }

    /// For this thread, from now on, and for those that it starts to write with it.
    pub fn arm(fault: Fault) {
        ARMED.set(Some(Arc::new(Armed { fault, taken: AtomicU64::new(0) })));
    }

    /// Nothing fails any more; whether anything did.
    pub fn disarm() -> bool {
        ARMED.take().is_some_and(|armed| armed.has_failed())
    }

    pub fn has_failed() -> bool {
        ARMED.with_borrow(|armed| armed.as_ref().is_some_and(|it| it.has_failed()))
    }

    pub(crate) fn step() -> io::Result<()> {
        let fails = ARMED.with_borrow(|armed| {
            armed.as_ref().is_some_and(|it| {
                let step = it.taken.fetch_add(1, Relaxed);
                match it.fault {
                    Fault::At(at) => step == at,
                    Fault::From(from) => step >= from,
                }
            })
        });
        if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}
