//! Corner cases of several rules. Each was a bug of the engine.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::pin;
use std::task::{Context, Poll};

use async_map_task::{AsyncMapTask, ItemError};
use futures::{FutureExt, poll};
use tokio::sync::Notify;
use tokio::task::coop::consume_budget;
use tokio::time::{advance, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{HOUR, PanicsOnDrop, after, lenient, millis, secs};

#[tokio::test(start_paused = true)]
async fn rule_07_each_item_gets_its_share_of_the_budget() {
    // The item between them has budget only if it is polled before the other two have used all of it.
    let done = Cell::new(false);
    let run = lenient().concurrency(3).build().unwrap();
    let run = run.run(0..3, |n| {
        let done = &done;
        async move {
            if n == 1 {
                consume_budget().await;
                done.set(true);
                return Ok(());
            }
            for _ in 0..100_000 {
                consume_budget().await;
                if done.get() {
                    return Ok(());
                }
            }
            Err("the other item never had its turn")
        }
    });
    assert_eq!(run.await.unwrap().successes(), 3);
}

#[tokio::test(start_paused = true)]
async fn rule_12_a_blocked_thread_does_not_lengthen_limits() {
    let task = lenient().concurrency(1).timeout_per_attempt(secs(20)).build().unwrap();
    let run = task.run(0..3, |n| async move {
        match n {
            0 => advance(secs(10)).await,
            1 => sleep(secs(21)).await,
            _ => sleep(secs(19)).await,
        }
        Ok::<_, String>(())
    });
    let result = run.await.unwrap();
    assert!(matches!(result.errors[&1], ItemError::TimedOut { .. }), "{}", result.summary);
    assert_eq!(result.summary.elapsed, secs(10 + 20 + 19));
}

#[tokio::test(start_paused = true)]
async fn rule_12_a_limit_begins_after_a_stall_behind_short_items() {
    // After a hundred short items, the clock is read only now and then: not between the last two items.
    let task = lenient().concurrency(2).timeout_per_attempt(millis(40)).build().unwrap();
    let run = task.run(0..102, |n| async move {
        match n {
            0..100 => {}
            100 => {
                let mut passes = Box::pin(advance(millis(50)));
                poll_fn(|cx| Poll::Ready(passes.as_mut().poll(cx))).await.is_ready();
            }
            _ => sleep(millis(39)).await,
        }
        Ok::<_, String>(())
    });
    let result = run.await.unwrap();
    assert_eq!((result.successes(), result.summary.timeouts), (102, 0));
}

#[tokio::test(start_paused = true)]
async fn rule_12_a_limit_begins_after_a_blocked_thread() {
    // The second item begins in the poll in which the first blocks for 50 ms: they do not count against its limit.
    let task = lenient().concurrency(2).timeout_per_attempt(millis(40)).build().unwrap();
    let run = task.run(0..2, |n| {
        let mut passes = Box::pin(advance(millis(50)));
        async move {
            if n == 0 {
                poll_fn(|cx| Poll::Ready(passes.as_mut().poll(cx))).await.is_ready();
                return Ok(());
            }
            sleep(millis(39)).await;
            Ok::<_, String>(())
        }
    });
    let result = run.await.unwrap();
    assert_eq!((result.successes(), result.summary.timeouts), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn rule_14_one_permit_finishes_exactly_at_the_run_timeout() {
    let task = AsyncMapTask::builder().concurrency(1).run_timeout(secs(1)).build().unwrap();
    let result = task.run([()], |()| after(secs(1), Ok::<_, String>(()))).await;
    assert_eq!(result.unwrap().successes(), 1);
}

#[tokio::test(start_paused = true)]
async fn rule_14_busy_items_do_not_delay_a_result() {
    let (token, gate) = (CancellationToken::new(), Notify::new());
    let task = AsyncMapTask::builder().concurrency(8).build().unwrap();
    let run = task.run(0..8, |n| {
        let gate = &gate;
        async move {
            if n == 7 {
                gate.notified().await;
                return Ok::<_, String>(());
            }
            poll_fn(|cx: &mut Context<'_>| {
                cx.waker().wake_by_ref();
                Poll::Pending
            })
            .await
        }
    });
    let mut run = pin!(run.cancellation_token(token.clone()));
    for _ in 0..20 {
        assert!(poll!(&mut run).is_pending());
    }
    gate.notify_one();
    token.cancel();
    assert_eq!(run.await.unwrap_err().summary().successes, 1);
}

#[tokio::test(start_paused = true)]
async fn rule_16_a_panicking_destructor_keeps_the_result() {
    // The value with the panicking destructor belongs to the future and not to its last poll. So it panics after the result
    // is there.
    let run = lenient().build().unwrap();
    let run = run.run([7], |n| {
        let mut bomb = Some(PanicsOnDrop);
        poll_fn(move |_| {
            let _ = &mut bomb;
            Poll::Ready(Ok::<_, String>(n))
        })
    });
    assert_eq!(run.await.unwrap().results, [Some(7)]);
}

/// An item, or a copy of it that was made for a retry. The destructor of a copy panics.
struct PanickingCopy(bool);

impl Clone for PanickingCopy {
    fn clone(&self) -> Self {
        Self(true)
    }
}

impl Drop for PanickingCopy {
    fn drop(&mut self) {
        if self.0 {
            resume_unwind(Box::new("the copy panics"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_16_a_panicking_copy_does_not_fail_the_next_item() {
    for parallel in [false, true] {
        let run = lenient().retries(1).concurrency(1).build().unwrap();
        let run = run.over([false; 3].map(PanickingCopy)).map(|item| ready(Ok::<_, String>(item.0)));
        let result = if parallel { run.parallel().await } else { run.await }.unwrap();
        assert_eq!((result.successes(), result.summary.panics), (3, 0), "{parallel}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_16_a_panicked_run_cannot_be_polled_again() {
    for concurrency in [1, 2, 4] {
        let task = lenient().concurrency(concurrency).build().unwrap();
        let source = (0..5).inspect(|n| assert_ne!(*n, 1, "a bad source"));
        let mut run = task.run(source, |_| after(millis(1), Ok::<_, String>(())));
        assert!(AssertUnwindSafe(&mut run).catch_unwind().await.is_err());
        let again = timeout(HOUR, AssertUnwindSafe(&mut run).catch_unwind()).await;
        assert!(again.expect("it neither hangs").is_err(), "nor does it succeed");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_20_the_message_of_an_early_stop_has_the_failures() {
    let task = AsyncMapTask::builder().name("few").min_successes(10).max_failures(0).build().unwrap();
    let error = task.run((0..20).filter(|_| true), |_| async { Err::<(), _>("no") }).await.unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with("few: 1 of 1 item failed, 0 allowed; item 0 failed first"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn rule_27_a_run_over_an_endless_range_of_nothing_ends() {
    let task = AsyncMapTask::builder().build().unwrap();
    let run = task.run(0..usize::MAX, |_| async { Err::<Infallible, _>("no") });
    let partial = run.await.unwrap_err().into_partial();
    assert_eq!((partial.total(), partial.failures()), (usize::MAX, 1));
}
