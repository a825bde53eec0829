//! Rule 16: a panic of an item ends that item, and a panic of the caller's code ends the run.

use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::future::pending;
use std::panic::{AssertUnwindSafe, panic_any};

use async_map_task::{AsyncMapTask, Event, FailureReason, TimeoutScope};
use futures::{FutureExt, StreamExt, stream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{Gauge, PanicsOnDrop, after, lenient, millis, panicked, secs, timed_out};

#[tokio::test(start_paused = true)]
async fn rule_16_a_panic_settles_its_item_with_its_message() {
    let calls = Cell::new(0);
    let task = lenient().retries(3).concurrency(3).build().unwrap();
    let run = task.over(0..8).map_with_context(|cx, n| {
        calls.set(calls.get() + 1);
        assert_ne!(n, 1, "built {n}");
        if n == 2 {
            panic!("built");
        }
        async move {
            match n {
                3 => panic!("polled"),
                4 => {
                    sleep(secs(1)).await;
                    panic!("polled {n}")
                }
                5 => panic_any(5_u8),
                6 if cx.attempt() == 1 => Err("again"),
                6 => panic!("at the second attempt"),
                _ => Ok(n),
            }
        }
    });
    let result = run.await.unwrap();
    let expected = [
        (1, "assertion `left != right` failed: built 1\n  left: 1\n right: 1", 1),
        (2, "built", 1),
        (3, "polled", 1),
        (4, "polled 4", 1),
        (5, "a panic without a message", 1),
        (6, "at the second attempt", 2),
    ];
    for (index, message, attempts) in expected {
        assert_eq!(result.errors[&index], panicked(message, attempts));
    }
    assert_eq!(result.results, [Some(0), None, None, None, None, None, None, Some(7)]);
    assert_eq!((result.failures(), result.summary.panics, calls.get()), (6, 6, 9));
}

#[tokio::test(start_paused = true)]
async fn rule_16_a_panic_counts_as_a_failure() {
    let task = AsyncMapTask::builder().concurrency(1).max_failures(1).build().unwrap();
    let error = task
        .run(0..9, |n| async move { if n % 2 == 0 { panic!("no") } else { Ok::<_, &str>(n) } })
        .await
        .unwrap_err();
    assert!(matches!(error.reason(), FailureReason::TooManyFailures { failures: 2, allowed: 1 }));
    assert_eq!(error.first_failure(), Some((0, &panicked("no", 1))));
    assert_eq!((error.partial().successes(), error.partial().not_started()), (1, 6));
}

#[tokio::test(start_paused = true)]
async fn rule_16_a_panic_of_a_destructor_affects_only_its_item() {
    let alive = Gauge::default();
    let task = lenient().concurrency(3).timeout_per_attempt(secs(1)).build().unwrap();
    let run = task.run(0..9, |n| {
        let alive = alive.enter();
        async move {
            // Dropped after the value that panics.
            let _alive = alive;
            let _bomb = (n % 3 == 0).then(|| PanicsOnDrop);
            if n == 6 {
                return Ok::<_, &str>(n);
            }
            sleep(millis(500 + 700 * (n % 2))).await;
            if n == 3 || n == 0 { pending().await } else { Ok(n) }
        }
    });
    let result = run.await.unwrap();
    assert_eq!(alive.now(), 0);
    // The outcome is the cause of the drop. If the item ended with the panic, the outcome is the panic.
    assert_eq!(result.errors[&0], timed_out(secs(1), TimeoutScope::Attempt, 1));
    assert_eq!(result.errors[&3], timed_out(secs(1), TimeoutScope::Attempt, 1));
    assert_eq!(result.errors[&6], panicked("dropped", 1));
    assert_eq!((result.results[2], result.results[4], result.results[8]), (Some(2), Some(4), Some(8)));
}

#[tokio::test(start_paused = true)]
async fn rule_16_a_panic_of_a_destructor_stays_inside_the_run() {
    let task = lenient().run_timeout(secs(1)).build().unwrap();
    let alive = Gauge::default();
    let new_run = || {
        task.run(0..4, |_| {
            let alive = alive.enter();
            async move {
                let _alive = alive;
                let _bomb = PanicsOnDrop;
                pending::<Result<(), &str>>().await
            }
        })
    };
    let error = new_run().await.unwrap_err();
    assert_eq!((error.partial().cancelled(), alive.now()), (4, 0));
    assert!(timeout(millis(500), new_run()).await.is_err());
    assert_eq!((alive.ever(), alive.now()), (8, 0));
}

/// The function of the caller that panics.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Culprit {
    List,
    Stream,
    RetryIf,
    RetryAfter,
    Observer(&'static str),
}

/// The kind of an event, as a word.
fn word(event: &Event<'_>) -> &'static str {
    match event {
        Event::RunStarted { .. } => "run started",
        Event::ItemStarted { .. } => "item started",
        Event::AttemptFailed { .. } => "attempt failed",
        Event::ItemSettled { .. } => "item settled",
        Event::RunFinished { .. } => "run finished",
        _ => "unknown",
    }
}

#[tokio::test(start_paused = true)]
async fn rule_16_a_panic_of_the_caller_drops_running_items_first() {
    let all = [
        Culprit::List,
        Culprit::Stream,
        Culprit::RetryIf,
        Culprit::RetryAfter,
        Culprit::Observer("item started"),
        Culprit::Observer("attempt failed"),
        Culprit::Observer("item settled"),
    ];
    for culprit in all {
        // Items 0 to 2 never end, item 3 fails or succeeds; then the function panics. A grace is set, because it must
        // not apply here.
        let (alive, tokens) = (Gauge::default(), RefCell::new(Vec::new()));
        let bang = |who: Culprit| assert_ne!(culprit, who, "bang");
        let task = lenient().concurrency(4).retries(1).cancel_grace(secs(9)).build().unwrap();
        let pulling = |n: u32, who| {
            if n == 4 {
                bang(who)
            }
        };
        let list = (0..9_u32).inspect(|n| pulling(*n, Culprit::List));
        let source = stream::iter(list).inspect(|n| pulling(*n, Culprit::Stream));
        let run = task
            .over_stream(source)
            .map_with_context(|cx, n| {
                tokens.borrow_mut().push(cx.cancellation_token().clone());
                let alive = alive.enter();
                async move {
                    let _alive = alive;
                    match n {
                        0..3 => pending().await,
                        3 => after(secs(1), Err("no")).await,
                        _ => after(secs(1), Ok(())).await,
                    }
                }
            })
            .retry_if(|_| {
                bang(Culprit::RetryIf);
                true
            })
            .retry_after(|_| {
                bang(Culprit::RetryAfter);
                None
            })
            .observe(|event: &Event<'_>| {
                if alive.now() >= 3 && !matches!(event, Event::ItemStarted { index: 3 }) {
                    bang(Culprit::Observer(word(event)));
                }
            });
        let mut run = Box::pin(run);
        let payload = AssertUnwindSafe(&mut run).catch_unwind().await.expect_err("a panic of the caller's");
        assert!(payload.downcast_ref::<String>().unwrap().contains("bang"), "{culprit:?}");
        // The run itself still exists; its items do not.
        assert_eq!(alive.now(), 0, "{culprit:?}");
        assert!(alive.ever() >= 4, "{culprit:?}: the panic came too early to tell");
        let tokens = tokens.borrow();
        assert!(tokens[..3].iter().all(CancellationToken::is_cancelled), "{culprit:?}");
        drop(run);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_16_a_panic_of_the_caller_keeps_tokens_of_ended_attempts() {
    for culprit in ["item started", "item settled"] {
        let tokens = RefCell::new(Vec::new());
        let task = lenient().concurrency(1).build().unwrap();
        let run = task
            .over(0..2)
            .map_with_context(|cx, _| {
                tokens.borrow_mut().push(cx.cancellation_token().clone());
                async { Ok::<_, &str>(()) }
            })
            .observe(|event: &Event<'_>| {
                assert!(tokens.borrow().is_empty() || word(event) != culprit, "bang")
            });
        assert!(AssertUnwindSafe(run).catch_unwind().await.is_err());
        assert_eq!(tokens.borrow().len(), 1);
        assert!(!tokens.borrow()[0].is_cancelled(), "{culprit}: the attempt had ended by itself");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_16_a_panic_of_an_observer_propagates() {
    for culprit in ["run started", "run finished"] {
        let alive = Gauge::default();
        let task = lenient().min_successes(1).early_success(true).build().unwrap();
        let run = task
            .run(0..9_u64, |n| {
                let alive = alive.enter();
                async move {
                    let _alive = alive;
                    sleep(secs(n)).await;
                    Ok::<_, &str>(())
                }
            })
            .observe(|event: &Event<'_>| assert_ne!(word(event), culprit, "bang"));
        let mut run = Box::pin(run);
        assert!(AssertUnwindSafe(&mut run).catch_unwind().await.is_err(), "{culprit}");
        assert_eq!(alive.now(), 0, "{culprit}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_16_a_panic_of_the_caller_is_the_join_error() {
    let alive = Gauge::default();
    let seen = alive.clone();
    let joined = tokio::spawn(async move {
        let source = (0..9).inspect(|n| assert!(*n < 5, "a bad source"));
        lenient()
            .concurrency(6)
            .build()
            .unwrap()
            .run(source, |_| {
                let alive = alive.enter();
                async move {
                    let _alive = alive;
                    pending::<Result<(), String>>().await
                }
            })
            .await
            .is_ok()
    });
    let error = joined.await.unwrap_err();
    assert_eq!(error.into_panic().downcast_ref::<&str>(), Some(&"a bad source"));
    assert_eq!((seen.ever(), seen.now()), (5, 0));
}
