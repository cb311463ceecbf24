//! No guard lives long enough to stop the services in their own way: init does it, bluntly.

use std::time::Duration;

use plimsoll_kernel::process::{self, Signal};

use super::{INTERNAL, Init};

/// Told to end first; killed, with all that is below us, after this.
const STOP_GRACE: Duration = Duration::from_secs(10);
const STOP_AT_LAST: Duration = Duration::from_secs(20);

impl Init {
    /// With each look, until nothing is left.
    pub(super) fn stop_by_ourselves(&mut self) {
        let Some(since) = self.stopping_since else { return };
        if self.children.are_over() {
            self.code = Some(0);
        } else if since.elapsed() > STOP_AT_LAST {
            self.code = Some(INTERNAL);
        } else if since.elapsed() < STOP_GRACE {
            for it in self.children.iter().filter(|it| it.end().is_none()) {
                let _ = process::signal(&self.roots, it.identity, Signal::TERM);
            }
        } else {
            let ours = std::process::id().cast_signed();
            let below = process::descendants(&self.roots, ours).unwrap_or_default();
            for it in below {
                let _ = process::signal(&self.roots, it.identity(), Signal::KILL);
            }
        }
    }
}
