//! Rule 28: a run that has ended or was dropped leaves nothing behind.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::sync::Arc;

use async_map_task::AsyncMapTask;
use futures::{StreamExt, poll, stream};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{Gauge, lenient, millis, secs};

/// All parts of a run, each with a gauge in it.
#[derive(Default)]
struct Everything {
    sources: Gauge,
    functions: Gauge,
    items: Gauge,
    attempts: Gauge,
    results: Gauge,
}

impl Everything {
    fn now(&self) -> [usize; 5] {
        [&self.sources, &self.functions, &self.items, &self.attempts, &self.results].map(Gauge::now)
    }
}

#[tokio::test(start_paused = true)]
async fn rule_28_a_run_that_is_dropped_at_any_poll_leaves_nothing() {
    let all = Everything::default();
    let mut finished = false;
    for polls in 0.. {
        if finished {
            break;
        }
        let tokens = RefCell::new(Vec::new());
        let in_source = all.sources.enter();
        let in_function = all.functions.enter();
        let item = |n: u64| Arc::new((n, all.items.enter()));
        let source = stream::iter(0..12).then(move |n| {
            let (_held, item) = (&in_source, item(n));
            async move {
                sleep(millis(n % 3)).await;
                item
            }
        });
        let task = lenient()
            .concurrency(3)
            .retries(2)
            .retry_delay(millis(5))
            .timeout_per_attempt(millis(20))
            .timeout_per_item(millis(50))
            .run_timeout(secs(9))
            .cancel_grace(millis(3))
            .build()
            .unwrap();
        let stop = CancellationToken::new();
        let run = task.over_stream(source).map_with_context(|cx, item| {
            let (_held, alive) = (&in_function, all.attempts.enter());
            tokens.borrow_mut().push((cx.clone(), cx.cancellation_token().clone()));
            let results = all.results.clone();
            async move {
                let _alive = alive;
                match item.0 % 4 {
                    0 if cx.attempt() == 1 => Err("again"),
                    1 => pending().await,
                    2 => {
                        yield_now().await;
                        Ok(results.enter())
                    }
                    _ => {
                        sleep(millis(item.0)).await;
                        Ok(results.enter())
                    }
                }
            }
        });
        let mut run = Box::pin(run.cancellation_token(stop.clone()));
        for _ in 0..polls {
            if poll!(&mut run).is_ready() {
                finished = true;
                break;
            }
            sleep(millis(1)).await;
        }
        let running = all.attempts.now();
        drop(run);
        drop(in_function);
        assert_eq!(all.now(), [0; 5], "after {polls} polls");
        assert!(
            finished
                || running == 0
                || tokens.borrow().iter().filter(|(_, token)| token.is_cancelled()).count() >= running
        );
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "a run spawns nothing");
        assert!(!stop.is_cancelled(), "the token is the caller's");
    }
    assert!(finished && all.attempts.ever() > 500);
}

#[tokio::test(start_paused = true)]
async fn rule_28_a_drop_cancels_the_tokens_of_running_attempts() {
    let tokens = RefCell::new(Vec::new());
    let task = lenient().concurrency(2).retries(1).build().unwrap();
    let mut run = Box::pin(task.over(0..9).map_with_context(|cx, n| {
        tokens.borrow_mut().push(cx.cancellation_token().clone());
        async move {
            match n {
                0 => Ok(()),
                1 => Err("waits for its retry"),
                _ => pending().await,
            }
        }
    }));
    assert!(poll!(&mut run).is_pending());
    drop(run);
    let cancelled: Vec<_> = tokens.borrow().iter().map(CancellationToken::is_cancelled).collect();
    assert_eq!(cancelled, [false, false, true, true]);
}

#[tokio::test(start_paused = true)]
async fn rule_28_an_ended_run_has_no_running_attempts() {
    // Not after it was dropped by a timeout, and not after it has ended.
    let (alive, steps) = (Gauge::default(), Cell::new(0));
    let (alive, steps) = (&alive, &steps);
    let task = lenient().concurrency(5).min_successes(1).early_success(true).build().unwrap();
    let new_run = |quick| {
        task.run(0..20, move |n| async move {
            let _alive = alive.enter();
            if n == quick {
                return Ok::<_, String>(());
            }
            loop {
                sleep(millis(100)).await;
                steps.set(steps.get() + 1);
            }
        })
    };
    assert!(timeout(secs(1), new_run(99)).await.is_err());
    let after = steps.get();
    assert!(after >= 45 && alive.now() == 0);
    sleep(secs(10)).await;
    assert_eq!((steps.get(), alive.now()), (after, 0));

    let mut run = Box::pin(new_run(3));
    (&mut run).await.unwrap();
    // The run still exists, as a future that has ended; its items do not.
    assert_eq!(alive.now(), 0);
    let after = steps.get();
    sleep(secs(10)).await;
    assert_eq!(steps.get(), after);
    drop(run);
}

#[tokio::test(start_paused = true)]
async fn rule_28_a_run_that_was_never_polled_starts_nothing() {
    let calls = Cell::new(0);
    let task = AsyncMapTask::builder().run_timeout(secs(1)).build().unwrap();
    let source = std::iter::from_fn(|| {
        calls.set(calls.get() + 1);
        Some(())
    });
    let run = task.run(source, |()| async {
        calls.set(calls.get() + 1);
        Ok::<_, String>(())
    });
    sleep(secs(10)).await;
    drop(run);
    assert_eq!(calls.get(), 0);
}
