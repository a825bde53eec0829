//! Rule 27: every item is accounted for, regardless of how its run ends and of what its source has promised.

use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;

use async_map_task::{AsyncMapTask, FailureReason};
use futures::stream;
use tokio::time::sleep;

use crate::support::{Hinted, Random, cancelled_after, check_account, lenient, millis, secs};

#[tokio::test(start_paused = true)]
async fn rule_27_every_end_accounts_for_every_item() {
    for seed in 0..400 {
        let mut dice = Random(seed);
        let concurrency = 1 + dice.below(6) as usize;
        let builder = AsyncMapTask::builder()
            .concurrency(concurrency)
            .retries(dice.below(3) as u32)
            .retry_delay(millis(20))
            .timeout_per_attempt(millis(30))
            .run_timeout(millis(50 + dice.below(300)))
            .cancel_grace(millis(dice.below(30)))
            .min_success_ratio([0.0, 0.5, 0.9][dice.below(3) as usize])
            .early_success(dice.below(2) == 0)
            .fail_fast(dice.below(4) == 0);
        let count = dice.below(60);
        let items: Vec<_> = (0..count).map(|_| (dice.below(12), dice.below(45))).collect();
        let (pulled, started, settled) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let seen = Rc::new(pulled);
        let counted = Rc::clone(&seen);
        let source = items.into_iter().inspect(move |_| counted.set(counted.get() + 1));
        let known = dice.below(2) == 0;
        let hint = if known { source.size_hint() } else { (0, None) };
        let task = builder.build().unwrap();
        let run = task
            .over(Hinted { items: source, hint })
            .map_with_context(|cx, (kind, duration)| {
                started.set(started.get() + usize::from(cx.attempt() == 1));
                async move {
                    sleep(millis(duration)).await;
                    match kind {
                        0 => panic!("as it happens"),
                        1..4 => Err("no"),
                        4 if cx.attempt() == 1 => Err("once"),
                        _ => Ok(duration),
                    }
                }
            })
            .observe(|event: &async_map_task::Event<'_>| {
                if let async_map_task::Event::ItemSettled { .. } = event {
                    settled.set(settled.get() + 1);
                }
            })
            .cancellation_token(cancelled_after(millis(dice.below(500))));
        let result = match run.await {
            Ok(result) => result,
            Err(error) => error.into_partial(),
        };
        check_account(&result);
        assert_eq!(result.total(), if known { count as usize } else { seen.get() }, "seed {seed}");
        assert_eq!(result.successes() + result.failures(), settled.get(), "seed {seed}");
        assert_eq!(result.cancelled(), started.get() - settled.get(), "seed {seed}");
        assert_eq!(result.not_started(), result.total() - started.get(), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_27_not_started_counts_pulled_and_promised_items() {
    let of = async |hint: Option<usize>| {
        let task = lenient().concurrency(2).build().unwrap();
        let items = Hinted { items: 0..50, hint: (hint.unwrap_or(0), hint) };
        let run = task.run(items, |_| pending::<Result<(), &str>>());
        let error = run.cancellation_token(cancelled_after(secs(1))).await.unwrap_err();
        check_account(error.partial());
        error.into_partial().summary
    };
    let known = of(Some(50)).await;
    assert_eq!((known.total, known.cancelled, known.not_started), (50, 2, 48));
    let unknown = of(None).await;
    assert_eq!((unknown.total, unknown.cancelled, unknown.not_started), (2, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn rule_27_a_wrong_size_hint_loses_no_item() {
    let hints = [
        (10, Some(10)),
        (0, Some(0)),
        (1, Some(1)),
        (999, Some(999)),
        (1_001, Some(1_001)),
        (usize::MAX, None),
        (usize::MAX, Some(usize::MAX)),
        (usize::MAX - 1, Some(usize::MAX)),
        // An upper bound below the lower one.
        (7, Some(3)),
    ];
    for hint in hints {
        for count in [0, 3, 1_000] {
            let task = AsyncMapTask::builder().concurrency(3).build().unwrap();
            let items = Hinted { items: 0..count, hint };
            let result = task.run(items, |n| async move { Ok::<_, String>(n) }).await.unwrap();
            check_account(&result);
            assert_eq!(result.total(), count, "{hint:?}");
            assert_eq!(result.into_successful_results(), (0..count).collect::<Vec<_>>(), "{hint:?}");

            let task = lenient().concurrency(3).retries(1).build().unwrap();
            let items = stream::iter(Hinted { items: 0..count, hint });
            let run = task.over_stream(items).map(|n| async move { if n % 2 == 0 { Ok(n) } else { Err(n) } });
            let result = run.await.unwrap();
            check_account(&result);
            assert_eq!((result.total(), result.failures()), (count, count / 2), "{hint:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_27_a_stopped_run_uses_the_size_hint_as_its_total() {
    for (hint, total) in
        [((usize::MAX, None), 2), ((usize::MAX, Some(usize::MAX)), usize::MAX), ((10, Some(10)), 10)]
    {
        let task = lenient().concurrency(2).build().unwrap();
        let run = task.run(Hinted { items: 0..1_000, hint }, |_| pending::<Result<(), &str>>());
        let error = run.cancellation_token(cancelled_after(secs(1))).await.unwrap_err();
        let result = error.into_partial();
        assert_eq!((result.total(), result.cancelled(), result.not_started()), (total, 2, total - 2));
        assert!(result.results.len() <= 2 + (1 << 20) && result.results.iter().all(Option::is_none));
    }
    // More items than promised: the items that came count.
    let task = lenient().concurrency(20).build().unwrap();
    let items = Hinted { items: 0..1_000, hint: (10, Some(10)) };
    let run = task.run(items, |_| pending::<Result<(), &str>>());
    let error = run.cancellation_token(cancelled_after(secs(1))).await.unwrap_err();
    assert_eq!((error.partial().total(), error.partial().cancelled()), (20, 20));
    check_account(error.partial());
}

#[tokio::test(start_paused = true)]
async fn rule_27_the_verdict_uses_the_real_total() {
    let task = AsyncMapTask::builder().min_success_ratio(0.5).build().unwrap();
    let of = |hint| Hinted { items: 0..4, hint: (hint, Some(hint)) };
    let two_of_four = task.run(of(100), |n| async move { if n < 2 { Ok(n) } else { Err("no") } });
    assert_eq!(two_of_four.await.unwrap().total(), 4);
    let one_of_four = task.run(of(100), |n| async move { if n < 1 { Ok(n) } else { Err("no") } });
    let error = one_of_four.await.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::TooManyFailures { failures: 3, allowed: 2 }));
}
