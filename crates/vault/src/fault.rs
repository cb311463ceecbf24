//! Where writing can fail: each step of each write of the vault passes here. Tests, built with the feature `faults`, make
//! any of them fail; without it this is nothing.

/// One more step is about to be taken.
#[cfg(not(feature = "faults"))]
#[expect(clippy::unnecessary_wraps, reason = "with the feature it can fail")]
pub(crate) fn step() -> std::io::Result<()> {
    Ok(())
}

#[cfg(feature = "faults")]
pub(crate) use armed::step;
#[cfg(feature = "faults")]
pub use armed::{Fault, arm, disarm, has_failed};

#[cfg(feature = "faults")]
mod armed {
    use std::cell::Cell;
    use std::io;

    /// What happens at a step, counted from 0 on.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Fault {
        /// This one fails, and the next one does not.
        At(u64),
        /// This one and all that follow: the disk is full from there on, or the process is gone.
        From(u64),
    }

    thread_local! {
        static ARMED: Cell<Option<Fault>> = const { Cell::new(None) };
        static TAKEN: Cell<u64> = const { Cell::new(0) };
    }

    /// For this thread, from now on.
    pub fn arm(fault: Fault) {
        TAKEN.set(0);
        ARMED.set(Some(fault));
    }

    /// Nothing fails any more; whether anything did.
    pub fn disarm() -> bool {
        let failed = has_failed();
        ARMED.set(None);
        failed
    }

    pub fn has_failed() -> bool {
        ARMED.get().is_some_and(|fault| match fault {
            Fault::At(step) | Fault::From(step) => TAKEN.get() > step,
        })
    }

    pub(crate) fn step() -> io::Result<()> {
        let step = TAKEN.replace(TAKEN.get() + 1);
        let fails = match ARMED.get() {
            Some(Fault::At(at)) => step == at,
            Some(Fault::From(from)) => step >= from,
            None => false,
        };
        if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}
