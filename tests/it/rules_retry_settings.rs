//! Rules 10 and 11: the settings of retries that concern time limits and delays of the server.

use std::future::pending;
use std::time::Duration;

use tokio::time::Instant;

use crate::support::{at_once, secs};

#[tokio::test(start_paused = true)]
async fn rule_10_timeouts_are_retried_unless_told_otherwise() {
    for (retry_timeouts, attempts) in [(true, 3), (false, 1)] {
        let task = at_once(1).retries(2).retry_delay(Duration::ZERO).timeout_per_attempt(secs(1));
        let task = task.retry_timeouts(retry_timeouts).build().unwrap();
        let error = task.run([()], |()| pending::<Result<(), String>>()).await.unwrap_err();
        assert_eq!(error.partial().errors[&0].attempts(), attempts);
        // Errors are retried in any case.
        let error = task.run([()], |()| async { Err::<(), _>("no") }).await.unwrap_err();
        assert_eq!(error.partial().errors[&0].attempts(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_11_max_retry_delay_caps_retry_after() {
    for (asked, waited) in [(secs(5), secs(5)), (secs(500), secs(30))] {
        let task = at_once(1).retries(1).max_retry_delay(secs(30)).build().unwrap();
        let began = Instant::now();
        let run = task.run([()], |()| async { Err::<(), _>("busy") }).retry_after(|_| Some(asked));
        run.await.unwrap_err();
        assert_eq!(began.elapsed(), waited);
    }
}
