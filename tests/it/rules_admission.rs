//! Rules 1 to 5: the items that start, the time of their start, and their maximum number.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use futures::{StreamExt, poll, stream};
use tokio::sync::Barrier;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use crate::support::{Gauge, Log, PanicsOnDrop, Random, at_once, millis, retrying, secs};

#[tokio::test(start_paused = true)]
async fn rule_01_an_item_is_pulled_when_it_can_start() {
    let (pulled, started, running) = (Cell::new(0), Cell::new(0), Gauge::default());
    let mut dice = Random(1);
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
async fn rule_01_a_stream_is_pulled_one_item_at_a_time() {
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
async fn rule_01_an_endless_source_is_pulled_lazily() {
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
async fn rule_01_a_source_is_not_polled_after_its_end() {
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
async fn rule_02_the_bound_is_reached_exactly() {
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
async fn rule_02_the_bound_holds_for_every_kind_of_attempt() {
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
            // Alive from the call to the drop: a timed-out attempt counts during its grace, too.
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
async fn rule_02_a_freed_permit_is_used_immediately() {
    // There are no batches: the long item delays no other.
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
async fn rule_02_items_start_as_early_as_possible() {
    for concurrency in [1, 2, 3, 8] {
        let mut dice = Random(7);
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
        let mut dice = Random(3);
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
async fn rule_03_a_stalled_stream_keeps_the_order() {
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

#[tokio::test(start_paused = true)]
async fn rule_04_every_end_of_an_attempt_returns_its_permit() {
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
                // These are many, and slow enough to use every permit that is left.
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
async fn rule_04_a_bound_above_the_semaphores_is_no_limit() {
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
    assert!(error.to_string().starts_with("concurrency must be at least 1 ("), "{error}");
    assert!(at_once(1).build().is_ok());
}
