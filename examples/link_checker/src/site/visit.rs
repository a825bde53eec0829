//! A request in progress. It ends before its answer is sent, so that the visitor cannot send the next one earlier.
//!
//! A refusal states that no request may come for some time. But the visitor knows that only when it has received the
//! refusal. Until then it may send more, unless all requests that it allows itself are in progress. So a host refuses a
//! request at such a moment, and answers the others after the hold. A request that comes earlier breaks the rules.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::host::{HOLD, Host, Record};

/// The time for which a host waits for more requests before it refuses one. Then there are no more.
const PATIENCE: Duration = Duration::from_millis(300);

pub(super) struct Visit {
    host: Arc<Host>,
    is_over: bool,
}

impl Visit {
    /// Begins a visit, and returns the number of requests for its page so far.
    pub(super) fn begin(host: Arc<Host>, path: &str) -> (Self, u32) {
        let mut record = host.record();
        record.requests += 1;
        record.in_progress += 1;
        record.most_at_once = record.most_at_once.max(record.in_progress);
        record.during_hold += usize::from(Instant::now() < record.held_until);
        let number = record.by_path.entry(path.to_owned()).or_default();
        *number += 1;
        let number = *number;
        drop(record);
        (Self { host, is_over: false }, number)
    }

    /// Ends the visit when no hold is active.
    pub(super) async fn end(mut self) {
        while let Some(hold) = self.try_end(|_| true) {
            sleep_until(hold).await;
        }
    }

    /// Ends the visit with a hold, which begins now.
    pub(super) async fn refuse(mut self) {
        let per_host = self.host.per_host;
        let mut patience = Instant::now() + PATIENCE;
        while !self.is_over {
            let is_late = Instant::now() >= patience;
            let hold = self.try_end(|record| {
                let may_refuse = is_late || record.in_progress >= per_host;
                if may_refuse {
                    record.refusals += 1;
                    record.held_until = Instant::now() + HOLD;
                }
                may_refuse
            });
            match hold {
                Some(hold) => {
                    sleep_until(hold).await;
                    patience = Instant::now() + PATIENCE;
                }
                None => sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// Ends the visit if the condition holds. If a hold is active, returns its end.
    fn try_end(&mut self, condition: impl FnOnce(&mut Record) -> bool) -> Option<Instant> {
        let mut record = self.host.record();
        if Instant::now() < record.held_until {
            return Some(record.held_until);
        }
        if condition(&mut record) {
            record.in_progress -= 1;
            self.is_over = true;
        }
        None
    }
}

/// The connection was closed before the answer.
impl Drop for Visit {
    fn drop(&mut self) {
        if !self.is_over {
            self.host.record().in_progress -= 1;
        }
    }
}
