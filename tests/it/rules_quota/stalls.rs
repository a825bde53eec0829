//! The time that the machine takes from the threads of a test.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::support::millis;

/// A thread may pause this long without a stall: a limiter makes up for a grant that is late by 10 ms.
const USUAL: Duration = millis(10);

/// The times in which watched threads did not run, without the first 10 ms of each.
///
/// It does not depend on the limiter. A task on each thread sleeps for a millisecond, again and again. If it wakes much later,
/// all other tasks of that thread had to wait as well.
#[derive(Debug, Clone, Default)]
pub(super) struct Stalls {
    found: Arc<Mutex<Vec<(Instant, Instant)>>>,
}

impl Stalls {
    /// Watches the thread of the task that polls this, until it is dropped.
    pub(super) async fn watch(self) {
        let mut last = Instant::now();
        loop {
            sleep(millis(1)).await;
            let now = Instant::now();
            if now - last > USUAL {
                self.found.lock().unwrap().push((last + USUAL, now));
            }
            last = now;
        }
    }

    /// Returns how much of this time at least one thread was stalled.
    pub(super) fn within(&self, from: Instant, to: Instant) -> Duration {
        let mut found = self.found.lock().unwrap().clone();
        found.sort_unstable();
        let (mut sum, mut counted_to) = (Duration::ZERO, from);
        for (start, end) in found {
            let end = end.min(to);
            sum += end.saturating_duration_since(start.max(counted_to));
            counted_to = counted_to.max(end);
        }
        sum
    }
}
