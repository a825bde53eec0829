//! Rules 1 to 7 and 9: which item starts when, and that nothing that has started stands still.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use async_map_task::{AsyncMapTask, AsyncMapTaskBuilder, Event};
use futures::{StreamExt, poll, stream};
use tokio::sync::{Barrier, Mutex, mpsc};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{Dice, Gauge, Log, after, millis, secs};

fn at_once(concurrency: usize) -> AsyncMapTaskBuilder {
    AsyncMapTask::builder().concurrency(concurrency)
}

/// One retry after exactly a second for every item, and any number of failures is fine.
fn retrying(concurrency: usize) -> AsyncMapTaskBuilder {
    at_once(concurrency).retries(1).retry_delay(secs(1)).retry_jitter(0.0).min_success_ratio(0.0)
}

#[tokio::test(start_paused = true)]
async fn rule_01_an_item_is_pulled_only_when_it_can_start() {
    let (pulled, started, running) = (Cell::new(0), Cell::new(0), Gauge::default());
    let mut dice = Dice(1);
    let items: Vec<_> = (0..60).map(|_| dice.below(4)).collect();
    let source = items.into_iter().inspect(|_| {
        assert!(running.now() < 3, "pulled while every place was taken");
        assert_eq!(pulled.get(), started.get(), "pulled while the last one had not started");
        pulled.set(pulled.get() + 1);
    });
    let mut run = at_once(3).build().unwrap().run(source, |delay| {
        started.set(started.get() + 1);
        assert_eq!(pulled.get(), started.get(), "a later item was pulled before this one started");
        let alive = running.enter();
        async move {
            sleep(secs(delay)).await;
            drop(alive);
            Ok::<_, String>(())
        }
    });
    assert_eq!(pulled.get(), 0, "nothing starts before the first poll");
    let _ = poll!(&mut run);
    assert!(pulled.get() >= 3);
    assert_eq!(run.await.unwrap().successes(), 60);
}

#[tokio::test(start_paused = true)]
async fn rule_01_a_stream_is_pulled_one_item_at_a_time_too() {
    let (pulled, started, running) = (Cell::new(0), Cell::new(0), Gauge::default());
    let source = stream::iter(0..60_u64).inspect(|_| {
        assert!(running.now() < 3, "pulled while every place was taken");
        assert_eq!(pulled.get(), started.get(), "pulled while the last one had not started");
        pulled.set(pulled.get() + 1);
    });
    let task = at_once(3).build().unwrap();
    let run = task.over_stream(source).map(|n| {
        started.set(started.get() + 1);
        let alive = running.enter();
        async move {
            sleep(millis(n * 7 % 5)).await;
            drop(alive);
            Ok::<_, String>(())
        }
    });
    assert_eq!(run.await.unwrap().successes(), 60);
    assert_eq!(pulled.get(), 60);
}

#[tokio::test(start_paused = true)]
async fn rule_01_an_endless_source_is_pulled_no_further_than_needed() {
    let pulled = Cell::new(0);
    let source = (0_u64..).inspect(|_| pulled.set(pulled.get() + 1));
    let task = at_once(4).min_successes(10).early_success(true).build().unwrap();
    let result = task
        .run(source, |n| async move {
            sleep(millis(n)).await;
            Ok::<_, String>(n)
        })
        .await
        .unwrap();
    assert_eq!(result.successes(), 10);
    assert!(pulled.get() <= 13, "{} were pulled for 10 successes and 3 running ones", pulled.get());
    assert_eq!(result.total(), pulled.get());
}

#[tokio::test(start_paused = true)]
async fn rule_01_a_source_is_not_asked_again_after_its_end() {
    let asked = Cell::new(0);
    let source = std::iter::from_fn(|| {
        asked.set(asked.get() + 1);
        assert!(asked.get() <= 6, "asked again after the end");
        (asked.get() <= 5).then_some(asked.get())
    });
    let task = retrying(2).build().unwrap();
    let run = task.run(source, |n| async move {
        sleep(millis(n)).await;
        Err::<(), _>(n)
    });
    assert_eq!(run.await.unwrap().failures(), 5);
    assert_eq!(asked.get(), 6);

    let asked = Cell::new(0);
    let source = stream::poll_fn(|_| {
        asked.set(asked.get() + 1);
        assert!(asked.get() <= 6, "asked again after the end");
        std::task::Poll::Ready((asked.get() <= 5).then_some(asked.get()))
    });
    let run = task.over_stream(source).map(|n| async move {
        sleep(millis(n)).await;
        Err::<(), _>(n)
    });
    assert_eq!(run.await.unwrap().failures(), 5);
}

#[tokio::test(start_paused = true)]
async fn rule_02_exactly_as_many_attempts_run_as_the_bound_says() {
    for (concurrency, items, expected) in
        [(1, 20, 1), (2, 20, 2), (3, 20, 3), (7, 20, 7), (64, 500, 64), (9, 5, 5)]
    {
        let running = Gauge::default();
        let task = at_once(concurrency).build().unwrap();
        let run = task.run(0..items, |n: u64| {
            let running = &running;
            async move {
                let _alive = running.enter();
                for _ in 0..n % 3 {
                    yield_now().await;
                }
                sleep(millis(1 + n % 5)).await;
                Ok::<_, String>(())
            }
        });
        run.await.unwrap();
        assert_eq!(running.peak(), expected, "concurrency {concurrency} over {items} items");
        assert_eq!(running.ever(), usize::try_from(items).unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn rule_02_the_bound_holds_for_retries_timeouts_graces_and_panics() {
    for concurrency in [1, 2, 5] {
        let running = Gauge::default();
        let task = at_once(concurrency)
            .retries(3)
            .retry_delay(millis(40))
            .timeout_per_attempt(millis(50))
            .cancel_grace(millis(30))
            .min_success_ratio(0.0)
            .build()
            .unwrap();
        let run = task.over(0..200_u64).map_with_context(|cx, n| {
            // Alive from the call to the drop: what a timed-out attempt holds in its grace counts, too.
            let alive = running.enter();
            async move {
                let _alive = alive;
                match (n + u64::from(cx.attempt())) % 5 {
                    0 => sleep(millis(200)).await,
                    1 => sleep(millis(60)).await,
                    2 => panic!("as it happens"),
                    _ => sleep(millis(n % 11)).await,
                }
                if n % 3 == 0 { Err("again") } else { Ok(()) }
            }
        });
        let result = run.await.unwrap();
        assert_eq!(result.successes() + result.failures(), 200);
        assert!(result.summary.timeouts > 0 && result.summary.retries > 0 && result.summary.panics > 0);
        assert_eq!(running.peak(), concurrency);
        assert_eq!(running.now(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_02_a_freed_place_is_filled_at_the_very_next_completion() {
    // Against batches: the long one keeps nobody waiting but itself.
    let log = Log::open();
    let task = at_once(2).build().unwrap();
    let run = task.run([10_u64, 1, 2, 1, 3, 1, 2], |seconds| {
        let log = log.clone();
        async move {
            log.note(());
            sleep(secs(seconds)).await;
            Ok::<_, String>(())
        }
    });
    assert_eq!(run.await.unwrap().summary.elapsed, secs(10));
    let starts: Vec<_> = log.timed().into_iter().map(|(at, ())| at).collect();
    assert_eq!(starts, [0, 0, 1_000, 3_000, 4_000, 7_000, 8_000]);
}

#[tokio::test(start_paused = true)]
async fn rule_02_every_start_is_at_the_earliest_possible_time() {
    for concurrency in [1, 2, 3, 8] {
        let mut dice = Dice(7);
        let items: Vec<_> = (0..120).map(|_| dice.below(50)).collect();
        let mut free_at: BinaryHeap<_> = (0..concurrency).map(|_| Reverse(0)).collect();
        let expected: Vec<_> = items
            .iter()
            .map(|duration| {
                let Reverse(start) = free_at.pop().unwrap();
                free_at.push(Reverse(start + duration));
                start
            })
            .collect();
        let log = Log::open();
        let run = at_once(concurrency).build().unwrap();
        let run = run.run(items, |duration| {
            let log = log.clone();
            async move {
                log.note(());
                sleep(millis(duration)).await;
                Ok::<_, String>(())
            }
        });
        run.await.unwrap();
        let starts: Vec<_> = log.timed().into_iter().map(|(at, ())| at).collect();
        assert_eq!(starts, expected, "concurrency {concurrency}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_03_items_start_in_input_order() {
    for concurrency in [1, 3, 16, 500] {
        let (called, polled) = (RefCell::new(Vec::new()), Log::open());
        let mut dice = Dice(3);
        let items: Vec<_> = (0..300).map(|index| (index, dice.below(9))).collect();
        let task = at_once(concurrency).build().unwrap();
        let run = task.run(items, |(index, duration)| {
            called.borrow_mut().push(index);
            let polled = polled.clone();
            async move {
                polled.note(index);
                sleep(millis(duration)).await;
                Ok::<_, String>(index)
            }
        });
        let result = run.await.unwrap();
        let in_order: Vec<_> = (0..300).collect();
        assert_eq!(*called.borrow(), in_order, "concurrency {concurrency}");
        assert_eq!(polled.lines(), in_order, "concurrency {concurrency}");
        assert_eq!(result.into_successful_results(), in_order);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_03_a_stream_that_stalls_keeps_the_order_too() {
    let started = RefCell::new(Vec::new());
    let source = stream::iter(0..40_u64).then(|n| async move {
        sleep(millis(n * 13 % 7)).await;
        n
    });
    let task = at_once(5).build().unwrap();
    let run = task.over_stream(source).map(|n| {
        started.borrow_mut().push(n);
        async move {
            sleep(millis(n * 5 % 11)).await;
            Ok::<_, String>(n)
        }
    });
    run.await.unwrap();
    assert_eq!(*started.borrow(), (0..40).collect::<Vec<_>>());
}

/// Panics when it is dropped, unless something panics already.
struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "dropped");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_04_every_end_of_an_attempt_gives_its_place_back() {
    const PLACES: usize = 5;
    let (running, late) = (Gauge::default(), Gauge::default());
    let task = at_once(PLACES)
        .retries(1)
        .retry_delay(millis(1))
        .timeout_per_attempt(secs(1))
        .min_success_ratio(0.0)
        .build()
        .unwrap();
    let run = task.run(0..100, |n| {
        let (alive, late) = (running.enter(), &late);
        assert!(n >= 60 || n % 6 != 0, "while the future is built");
        async move {
            let _alive = alive;
            if n >= 60 {
                // These are many and slow enough to use every place that there still is.
                let _alive = late.enter();
                sleep(millis(900)).await;
                return Ok(());
            }
            match n % 6 {
                1 => panic!("while the future is polled"),
                2 => {
                    let _bomb = PanicsOnDrop;
                    std::future::pending().await
                }
                3 => std::future::pending().await,
                4 => Err("no"),
                _ => Ok(()),
            }
        }
    });
    let result = timeout(secs(3_600), run).await.expect("a place is missing").unwrap();
    assert_eq!(result.successes(), 10 + 40);
    assert_eq!((running.peak(), late.peak()), (PLACES, PLACES));
    assert_eq!(running.now(), 0);
}

#[tokio::test(start_paused = true)]
async fn rule_04_a_bound_above_what_a_semaphore_can_hold_is_no_limit() {
    let barrier = Barrier::new(1_000);
    let task = at_once(usize::MAX).build().unwrap();
    let run = task.run(0..1_000, |_| async {
        barrier.wait().await;
        Ok::<_, String>(())
    });
    let result = timeout(secs(60), run).await.expect("all run at once").unwrap();
    assert_eq!(result.successes(), 1_000);
}

#[test]
fn rule_05_a_concurrency_of_zero_is_a_build_error() {
    let error = at_once(0).build().unwrap_err();
    assert_eq!((error.field(), error.found()), ("concurrency", "0"));
    assert!(error.to_string().starts_with("concurrency is 0, allowed is 1 or more"), "{error}");
    assert!(at_once(1).build().is_ok());
}

#[tokio::test(start_paused = true)]
async fn rule_06_an_item_that_waits_for_its_retry_holds_no_place() {
    let (log, running) = (Log::open(), Gauge::default());
    let task = retrying(2).build().unwrap();
    let run = task.over([0_u64, 5_000, 400, 400, 400, 400]).map_with_context(|cx, duration| {
        let (log, running) = (log.clone(), &running);
        async move {
            log.note((cx.index(), cx.attempt()));
            let _alive = running.enter();
            sleep(millis(duration)).await;
            if cx.index() == 0 && cx.attempt() == 1 { Err("again") } else { Ok(()) }
        }
    });
    let result = run.await.unwrap();
    assert_eq!(result.successes(), 6);
    let expected = [
        (0, (0, 1)),
        (0, (1, 1)),
        (0, (2, 1)),
        (400, (3, 1)),
        (800, (4, 1)),
        (1_200, (0, 2)),
        (1_200, (5, 1)),
    ];
    assert_eq!(log.timed(), expected);
    assert_eq!(running.peak(), 2);
}

#[tokio::test(start_paused = true)]
async fn rule_06_with_one_place_no_other_item_starts_before_the_retry() {
    let (log, pulled) = (Log::open(), Cell::new(0));
    let task = retrying(1).build().unwrap();
    let source = (0..3).inspect(|_| pulled.set(pulled.get() + 1));
    let run = task.over(source).map_with_context(|cx, _| {
        log.note((cx.index(), cx.attempt(), pulled.get()));
        async move { if cx.attempt() == 1 { Err("again") } else { Ok(()) } }
    });
    run.await.unwrap();
    let expected = [
        (0, (0, 1, 1)),
        (1_000, (0, 2, 1)),
        (1_000, (1, 1, 2)),
        (2_000, (1, 2, 2)),
        (2_000, (2, 1, 3)),
        (3_000, (2, 2, 3)),
    ];
    assert_eq!(log.timed(), expected);
}

#[tokio::test(start_paused = true)]
async fn rule_06_with_two_places_a_third_item_starts_at_once() {
    let log = Log::open();
    let task = retrying(2).build().unwrap();
    let run = task.over(0..3).map_with_context(|cx, n| {
        log.note((cx.index(), cx.attempt()));
        async move {
            sleep(millis([100, 10_000, 10_000][n])).await;
            if n == 0 && cx.attempt() == 1 { Err("again") } else { Ok(()) }
        }
    });
    run.await.unwrap();
    assert_eq!(log.timed(), [(0, (0, 1)), (0, (1, 1)), (100, (2, 1)), (10_000, (0, 2))]);
}

#[tokio::test(start_paused = true)]
async fn rule_06_at_most_as_many_wait_for_a_retry_as_may_run() {
    let (log, pulled) = (Log::open(), Cell::new(0));
    let task = retrying(2).build().unwrap();
    let source = (0..5).inspect(|_| pulled.set(pulled.get() + 1));
    let run = task.over(source).map_with_context(|cx, _| {
        log.note((cx.index(), cx.attempt(), pulled.get()));
        async move { if cx.attempt() == 1 { Err("again") } else { Ok(()) } }
    });
    run.await.unwrap();
    let expected = [
        (0, (0, 1, 1)),
        (0, (1, 1, 2)),
        (1_000, (0, 2, 2)),
        (1_000, (1, 2, 2)),
        (1_000, (2, 1, 3)),
        (1_000, (3, 1, 4)),
        (2_000, (2, 2, 4)),
        (2_000, (3, 2, 4)),
        (2_000, (4, 1, 5)),
        (3_000, (4, 2, 5)),
    ];
    assert_eq!(log.timed(), expected);
}

#[tokio::test(start_paused = true)]
async fn rule_06_one_that_comes_back_from_its_wait_lets_one_new_item_in() {
    let log = Log::open();
    let task = retrying(2).build().unwrap();
    let run = task
        .over(0..4_u64)
        .map_with_context(|cx, n| {
            log.note((cx.index(), cx.attempt()));
            async move {
                if n < 2 && cx.attempt() == 1 {
                    return Err(secs(1 + 4 * n));
                }
                sleep(secs(2)).await;
                Ok(())
            }
        })
        .retry_after(|wait| Some(*wait));
    run.await.unwrap();
    let expected =
        [(0, (0, 1)), (0, (1, 1)), (1_000, (0, 2)), (1_000, (2, 1)), (3_000, (3, 1)), (5_000, (1, 2))];
    assert_eq!(log.timed(), expected);
}

#[tokio::test(start_paused = true)]
async fn rule_06_no_item_is_admitted_while_as_many_wait_as_may_run() {
    for concurrency in [1, 2, 3, 8] {
        let (waiting, full) = (Cell::new(0_usize), Cell::new(0));
        let task = at_once(concurrency)
            .retries(4)
            .retry_delay(millis(30))
            .retry_jitter(1.0)
            .min_success_ratio(0.0)
            .build()
            .unwrap();
        let run = task
            .over(0..300_u64)
            .map_with_context(|cx, n| {
                if cx.attempt() > 1 {
                    waiting.set(waiting.get() - 1);
                }
                async move {
                    sleep(millis(n * u64::from(cx.attempt()) % 17)).await;
                    if (n + u64::from(cx.attempt())) % 7 < 5 { Err("again") } else { Ok(()) }
                }
            })
            .observe(|event: &Event<'_>| match event {
                Event::AttemptFailed { retry_in: Some(_), .. } => {
                    waiting.set(waiting.get() + 1);
                    full.set(full.get() + usize::from(waiting.get() >= concurrency));
                    // Admission stops at the bound; only what then ran can still join.
                    assert!(waiting.get() < 2 * concurrency);
                }
                Event::ItemStarted { .. } => assert!(waiting.get() < concurrency),
                _ => {}
            });
        let result = run.await.unwrap();
        assert_eq!(result.successes() + result.failures(), 300);
        assert!(full.get() > 20, "the bound on waiting items was hardly ever reached: {}", full.get());
        assert_eq!(waiting.get(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_06_a_ready_retry_goes_before_an_item_that_has_not_started() {
    // Both retries become ready while every place is taken; the one that was ready first goes first.
    let (log, running) = (Log::open(), Gauge::default());
    let task = retrying(3).build().unwrap();
    let run = task
        .over(0..8_u64)
        .map_with_context(|cx, n| {
            let (log, running) = (log.clone(), &running);
            async move {
                log.note((cx.index(), cx.attempt()));
                let _alive = running.enter();
                match (n, cx.attempt()) {
                    (0, 1) => Err(secs(2)),
                    (1, 1) => Err(secs(1)),
                    (2, 1) => after(secs(3), Ok(())).await,
                    (3, 1) => after(secs(4), Ok(())).await,
                    (4, 1) => after(secs(5), Ok(())).await,
                    _ => after(secs(9), Ok(())).await,
                }
            }
        })
        .retry_after(|wait| Some(*wait));
    run.await.unwrap();
    let expected = [
        (0, (0, 1)),
        (0, (1, 1)),
        (0, (2, 1)),
        (0, (3, 1)),
        (0, (4, 1)),
        (3_000, (1, 2)),
        (4_000, (0, 2)),
        (5_000, (5, 1)),
        (12_000, (6, 1)),
        (13_000, (7, 1)),
    ];
    assert_eq!(log.timed(), expected);
    assert_eq!(running.peak(), 3);
}

#[tokio::test(start_paused = true)]
async fn rule_06_a_retry_that_becomes_ready_as_a_place_falls_free_goes_first() {
    let log = Log::open();
    let task = retrying(2).build().unwrap();
    let run = task.over(0..6).map_with_context(|cx, n| {
        log.note((cx.index(), cx.attempt()));
        async move {
            if n == 0 && cx.attempt() == 1 {
                return Err("again");
            }
            sleep(secs(1)).await;
            Ok(())
        }
    });
    run.await.unwrap();
    let order: Vec<_> = log.lines();
    assert_eq!(order, [(0, 1), (1, 1), (2, 1), (0, 2), (3, 1), (4, 1), (5, 1)]);
}

#[tokio::test(start_paused = true)]
async fn rule_06_a_retry_without_a_wait_goes_before_a_new_item_too() {
    let log = Log::open();
    let task = at_once(1).retries(2).retry_delay(secs(0)).min_success_ratio(0.0).build().unwrap();
    let run = task.over(0..3).map_with_context(|cx, _| {
        log.note((cx.index(), cx.attempt()));
        async { Err::<(), _>("again") }
    });
    run.await.unwrap();
    assert_eq!(log.lines(), [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]);
    assert_eq!(log.millis(), 0);
}

#[tokio::test(start_paused = true)]
async fn rule_07_a_slow_source_does_not_stop_the_running_items() {
    // In steps: an item that was left alone while the source stalls would miss its limit.
    let log = Log::open();
    let task = at_once(4).timeout_per_attempt(secs(2)).build().unwrap();
    let source = stream::iter(0..3).then(|n| async move {
        sleep(secs(10)).await;
        n
    });
    let run = task.over_stream(source).map(|n| {
        let log = log.clone();
        async move {
            for _ in 0..10 {
                sleep(millis(100)).await;
            }
            log.note(n);
            Ok::<_, String>(())
        }
    });
    run.await.unwrap();
    assert_eq!(log.timed(), [(11_000, 0), (21_000, 1), (31_000, 2)]);
}

#[tokio::test(start_paused = true)]
async fn rule_07_a_source_that_waits_for_an_item_gets_what_it_waits_for() {
    let (done, finished) = mpsc::unbounded_channel();
    let source = stream::unfold((0, finished), |(n, mut finished)| async move {
        if n == 20 {
            return None;
        }
        if n > 0 {
            assert_eq!(finished.recv().await, Some(n - 1));
        }
        Some((n, (n + 1, finished)))
    });
    let task = at_once(3).build().unwrap();
    let run = task.over_stream(source).map(|n| {
        let done = done.clone();
        async move {
            yield_now().await;
            sleep(millis(1)).await;
            let _ = done.send(n);
            Ok::<_, String>(n)
        }
    });
    assert_eq!(timeout(secs(60), run).await.expect("the run hangs").unwrap().successes(), 20);
}

#[tokio::test(start_paused = true)]
async fn rule_07_items_that_share_a_lock_all_get_it() {
    for concurrency in [1, 2, 10] {
        let shared = Mutex::new(0);
        let task = at_once(concurrency).build().unwrap();
        let run = task.run(0..10, |_| async {
            let mut count = shared.lock().await;
            sleep(millis(10)).await;
            yield_now().await;
            *count += 1;
            Ok::<_, String>(())
        });
        timeout(secs(60), run).await.expect("the run hangs").unwrap();
        assert_eq!(*shared.lock().await, 10);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_07_a_retry_that_waits_for_a_place_leaves_the_running_items_running() {
    let shared = Mutex::new(());
    let task = retrying(2).timeout_per_attempt(secs(60)).build().unwrap();
    let run = task.over(0..6_u64).map_with_context(|cx, n| {
        let shared = &shared;
        async move {
            let _held = shared.lock().await;
            sleep(secs(2)).await;
            if n % 2 == 0 && cx.attempt() == 1 { Err("again") } else { Ok(()) }
        }
    });
    let result = timeout(secs(600), run).await.expect("the run hangs").unwrap();
    assert_eq!((result.successes(), result.summary.retries, result.summary.timeouts), (6, 3, 0));
    assert_eq!(result.summary.elapsed, secs(18));
}

#[tokio::test(start_paused = true)]
async fn rule_07_a_place_that_falls_free_wakes_the_source() {
    // The source was last polled with every place free, and stalled. Its own waker must still be the run's.
    let (feed, items) = mpsc::unbounded_channel::<u64>();
    let source = stream::unfold(items, |mut items| async move { Some((items.recv().await?, items)) });
    let log = Log::open();
    let task = at_once(2).build().unwrap();
    let run = task.over_stream(source).map(|n| {
        log.note(n);
        async move {
            sleep(secs(n)).await;
            Ok::<_, String>(n)
        }
    });
    let feeding = async {
        for n in [5, 1, 1, 1] {
            feed.send(n).unwrap();
        }
        sleep(secs(20)).await;
        feed.send(2).unwrap();
        drop(feed);
    };
    let (result, ()) = tokio::join!(run, feeding);
    assert_eq!(result.unwrap().summary.elapsed, secs(22));
    assert_eq!(log.timed(), [(0, 5), (0, 1), (1_000, 1), (2_000, 1), (20_000, 2)]);
}

/// Runs beside a run in one thread and counts how often it gets its turn, and how many items at most
/// started between two turns. After `turns` it cancels the run.
async fn take_turns(turns: usize, items: Rc<Cell<usize>>, stop: CancellationToken) -> usize {
    let (mut widest, mut before) = (0, items.get());
    for _ in 0..turns {
        yield_now().await;
        widest = widest.max(items.get() - before);
        before = items.get();
    }
    stop.cancel();
    widest
}

const MANY: usize = 10_000_000;
/// How many items may start before another task gets its turn: a few times Tokio's own budget of 128.
const STRETCH: usize = 1_000;
const TURNS: usize = 300;

#[tokio::test]
async fn rule_09_a_run_over_ready_items_lets_other_tasks_run() {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            for concurrency in [1, 4, 1_000, 1_000_000] {
                let (count, stop) = (Rc::new(Cell::new(0)), CancellationToken::new());
                let other = tokio::task::spawn_local(take_turns(TURNS, Rc::clone(&count), stop.clone()));
                let task = at_once(concurrency).build().unwrap();
                let run = task.run(0..MANY, |n| {
                    count.set(count.get() + 1);
                    async move { Ok::<_, String>(n) }
                });
                let error = run.cancellation_token(stop).await.unwrap_err();
                assert!(error.partial().successes() >= TURNS, "it hardly ran at all");
                let widest = other.await.unwrap();
                assert!(widest <= STRETCH, "{widest} items between two turns of another task");
            }
        })
        .await;
}

#[tokio::test]
async fn rule_09_a_run_over_a_ready_stream_lets_other_tasks_run() {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let (count, stop) = (Rc::new(Cell::new(0)), CancellationToken::new());
            let other = tokio::task::spawn_local(take_turns(TURNS, Rc::clone(&count), stop.clone()));
            let task = at_once(16).build().unwrap();
            let run = task.over_stream(stream::iter(0..MANY)).map(|n| {
                count.set(count.get() + 1);
                async move { Ok::<_, String>(n) }
            });
            let error = run.cancellation_token(stop).await.unwrap_err();
            assert!(error.partial().successes() >= TURNS, "it hardly ran at all");
            let widest = other.await.unwrap();
            assert!(widest <= STRETCH, "{widest} items between two turns of another task");
        })
        .await;
}

#[tokio::test]
async fn rule_09_retries_panics_and_failures_without_a_wait_let_other_tasks_run() {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            for fault in 0..3 {
                let (count, stop) = (Rc::new(Cell::new(0)), CancellationToken::new());
                let other = tokio::task::spawn_local(take_turns(20, Rc::clone(&count), stop.clone()));
                let retries = if fault == 0 { u32::MAX } else { 0 };
                let task =
                    at_once(2).retries(retries).retry_delay(secs(0)).min_success_ratio(0.0).build().unwrap();
                let run = task.run(0..MANY, |_| {
                    count.set(count.get() + 1);
                    // Unwinding without the panic hook, which would print a million lines.
                    if fault == 2 {
                        std::panic::resume_unwind(Box::new("no"));
                    }
                    async { Err::<(), _>("no") }
                });
                run.cancellation_token(stop).await.unwrap_err();
                let widest = other.await.unwrap();
                assert!(
                    (1..=STRETCH).contains(&widest),
                    "{widest} attempts between two turns of another task"
                );
            }
        })
        .await;
}

#[test]
fn rule_09_ten_million_ready_items_are_no_matter_of_one_poll() {
    // No runtime at all: each poll returns, having asked to be polled again.
    let count = Cell::new(0);
    let task = at_once(8).build().unwrap();
    let mut run = task.run(0..MANY, |n| {
        count.set(count.get() + 1);
        async move { Ok::<_, String>(n) }
    });
    let (mut cx, mut before) = (std::task::Context::from_waker(std::task::Waker::noop()), 0);
    for _ in 0..100 {
        assert!(std::pin::Pin::new(&mut run).poll(&mut cx).is_pending());
        assert!((1..=STRETCH).contains(&(count.get() - before)));
        before = count.get();
    }
}
