//! Rule 40: a task with several limiters.

use std::time::Duration;

use async_map_task::{AsyncMapTask, AsyncMapTaskBuilder, Limiter};
use futures::stream;
use tokio::time::sleep;

use crate::every_end::{End, Plan, Report, Terminal};
use crate::support::{Gauge, HOUR, Log, after, at_once, in_time, millis, secs};

/// A task with limiters that are named in this order.
fn task(concurrency: usize, limiters: &[&Limiter]) -> AsyncMapTask {
    let named = limiters.iter().fold(at_once(concurrency), |builder, limiter| builder.limiter(limiter));
    named.build().unwrap()
}

/// This many items, which take a second each. The log has their starts, and the gauge counts the running ones.
fn seconds(task: &AsyncMapTask, items: u64) -> (Plan, Log<u64>, Gauge) {
    let (log, running) = (Log::open(), Gauge::default());
    let (notes, gauge) = (log.clone(), running.clone());
    let call = move |_, n| {
        notes.note(n);
        let alive = gauge.enter();
        async move {
            let _alive = alive;
            after(secs(1), Ok(n)).await
        }
    };
    (Plan::new(task, stream::iter(0..items), call), log, running)
}

fn idle(limiters: &[&Limiter]) -> bool {
    limiters.iter().all(|limiter| limiter.in_use() == 0 && limiter.waiting() == 0)
}

#[tokio::test(start_paused = true)]
async fn rule_40_an_attempt_needs_permits_of_all_limiters() {
    for end in End::all() {
        for (permits, others) in [(2, 3), (3, 2), (2, 2)] {
            let (one, other, third) = (Limiter::new(permits), Limiter::new(others), Limiter::new(9));
            let (plan, _, running) = seconds(&task(9, &[&one, &other, &third]), 10);
            let report = in_time(plan.run(end)).await;
            assert_eq!((report.summary.successes, running.peak()), (10, 2), "{end:?}");
            assert_eq!(report.summary.elapsed, secs(5), "{end:?}");
            assert!(idle(&[&one, &other, &third]), "{end:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_40_a_weight_counts_at_each_limiter() {
    for end in End::all() {
        let (one, other) = (Limiter::new(4), Limiter::new(6));
        let (plan, log) = Plan::of_weights(&task(9, &[&one, &other]), &[3, 3, 1, 1], secs(1));
        in_time(plan.run(end)).await;
        assert_eq!(log.timed(), [(0, 3), (1_000, 3), (1_000, 1), (2_000, 1)], "{end:?}");
        let (plan, _) = Plan::of_weights(&task(9, &[&other, &one]), &[1, 5], secs(1));
        let report = in_time(plan.run(end)).await;
        let reason = report.reason.expect("no permit of 5 was ever there");
        assert!(reason.contains("weight") && reason.contains("at most 4"), "{reason}: {end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_40_a_run_that_waits_holds_nothing_and_lets_others_pass() {
    for end in End::all() {
        let (full, free) = (Limiter::new(1), Limiter::new(1));
        let held = full.acquire().await.unwrap();
        let (plan, log, _) = seconds(&task(4, &[&free, &full]), 2);
        let waiting = tokio::spawn(plan.run(end));
        sleep(millis(10)).await;
        assert_eq!((free.in_use(), free.waiting(), full.waiting()), (0, 1, 1), "{end:?}");
        drop(free.try_acquire().expect("it is free"));
        // Its queue serves those behind the run at once, and holds their order.
        let (other, other_log, _) = seconds(&task(4, &[&free]), 5);
        in_time(other.run(end)).await;
        assert_eq!(other_log.times(), [0, 1_000, 2_000, 3_000, 4_000], "{end:?}");
        assert!(log.lines().is_empty(), "{end:?}");
        drop(held);
        let report = in_time(waiting).await.unwrap();
        assert_eq!((report.summary.successes, log.times()), (2, vec![5_010, 6_010]), "{end:?}");
        assert!(idle(&[&full, &free]), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_40_no_order_of_naming_deadlocks() {
    for end in End::all() {
        let (one, other, third) = (Limiter::new(1), Limiter::new(2), Limiter::new(1));
        let orders: [&[&Limiter]; 6] = [
            &[&one, &other, &third],
            &[&third, &other, &one],
            &[&other, &one],
            &[&one, &third],
            &[&third, &one],
            &[&other, &other],
        ];
        let runs = orders.map(|limiters| tokio::spawn(seconds(&task(3, limiters), 20).0.run(end)));
        for run in runs {
            let report: Report = in_time(run).await.unwrap();
            assert_eq!(report.summary.successes, 20, "{end:?}");
        }
        assert!(idle(&[&one, &other, &third]), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_40_runs_with_the_same_limiters_take_turns() {
    for end in End::all() {
        let (one, other) = (Limiter::new(1), Limiter::new(1));
        let (first, first_log, _) = seconds(&task(4, &[&one, &other]), 5);
        let (second, second_log, _) = seconds(&task(4, &[&other, &one]), 5);
        let runs = [tokio::spawn(first.run(end)), tokio::spawn(second.run(end))];
        for run in runs {
            in_time(run).await.unwrap();
        }
        let mut times = [first_log.times(), second_log.times()].concat();
        times.sort_unstable();
        assert_eq!(times, (0..10).map(|n| n * 1_000).collect::<Vec<_>>(), "{end:?}");
        let lead = first_log.times().last().unwrap().abs_diff(*second_log.times().last().unwrap());
        assert!(lead <= 2_000, "{end:?}: {lead} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_40_all_rates_hold_together() {
    let every = |time: Duration| Limiter::builder().rate(1, time).build().unwrap();
    for end in End::all() {
        let (slow, fast, narrow) = (every(millis(300)), every(millis(200)), Limiter::new(2));
        let (plan, log, running) = seconds(&task(9, &[&fast, &narrow, &slow]), 8);
        // The rate of the fast one is used by others as well.
        let others = fast.clone();
        let rival = tokio::spawn(async move {
            for _ in 0..4 {
                drop(others.acquire().await.unwrap());
            }
        });
        in_time(plan.run(end)).await;
        in_time(rival).await.unwrap();
        let times = log.times();
        for pair in times.windows(2) {
            assert!(pair[1] - pair[0] >= 290, "{end:?}: {times:?}");
        }
        assert_eq!(running.peak(), 2, "{end:?}");
        // Two at once take a second each, so two start per second.
        assert!(*times.last().unwrap() <= 3_800, "{end:?}: {times:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_40_the_limiter_named_first_holds() {
    for end in End::all() {
        let (first, second) = (Limiter::new(4), Limiter::new(4));
        let refuse = async |(): ()| Err::<(), _>("busy");
        let lenient = at_once(4).limiter(&first).limiter(&second).min_success_ratio(0.0).build().unwrap();
        lenient.over([()]).map(refuse).hold_back(|_| Some(secs(50))).await.unwrap();
        drop(second.try_acquire().expect("it is not held"));
        assert!(first.try_acquire().is_none());
        let (plan, log, _) = seconds(&task(4, &[&second, &first]), 1);
        in_time(plan.run(end)).await;
        assert_eq!(log.times(), [50_000], "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_40_a_run_that_ends_leaves_all_queues() {
    for end in End::all() {
        let (full, free) = (Limiter::new(1), Limiter::new(1));
        let held = full.acquire().await.unwrap();
        let waiting = |builder: AsyncMapTaskBuilder| {
            let task = builder.limiter(&free).limiter(&full).build().unwrap();
            seconds(&task, 2).0
        };
        let report = in_time(waiting(at_once(4).run_timeout(secs(5))).run(end)).await;
        assert_eq!(report.summary.not_started, 2, "{end:?}");
        assert_eq!((free.waiting(), full.waiting()), (0, 0), "{end:?}: after its time limit");
        if end.terminal == Terminal::Spawn {
            continue; // A handle that is dropped detaches its run.
        }
        let dropped = tokio::spawn(waiting(at_once(4)).run(end));
        sleep(secs(1)).await;
        assert_eq!((free.waiting(), full.waiting()), (1, 1), "{end:?}");
        dropped.abort();
        assert!(dropped.await.unwrap_err().is_cancelled());
        // The driver of a stream has a task of its own, which ends later.
        sleep(millis(1)).await;
        assert_eq!((free.waiting(), full.waiting()), (0, 0), "{end:?}: after it was dropped");
        drop(held);
        assert!(idle(&[&full, &free]), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_40_a_pause_leaves_all_queues() {
    let (full, free) = (Limiter::new(1), Limiter::new(1));
    let held = full.acquire().await.unwrap();
    for end in End::of(Terminal::Spawn) {
        let handle = seconds(&task(4, &[&free, &full]), 2).0.spawn(end);
        sleep(secs(1)).await;
        assert_eq!((free.waiting(), full.waiting()), (1, 1), "{end:?}");
        handle.pause();
        sleep(secs(1)).await;
        assert_eq!((free.waiting(), full.waiting()), (0, 0), "{end:?}");
        handle.resume();
        sleep(secs(1)).await;
        assert_eq!((free.waiting(), full.waiting()), (1, 1), "{end:?}");
        handle.cancel();
        tokio::time::timeout(HOUR, handle).await.expect("it hangs").unwrap_err();
    }
    drop(held);
    assert!(idle(&[&full, &free]));
}
