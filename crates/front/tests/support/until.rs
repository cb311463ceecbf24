//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

/// Long enough for a machine that does much else at the same time; nothing waits this long that succeeds.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Looks until `condition` gives something; fails with `what` at the deadline.
pub(crate) async fn until<V>(what: &str, mut condition: impl AsyncFnMut() -> Option<V>) -> V {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
