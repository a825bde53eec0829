//! Rule 47 for the shared limit: lowering it never ends a run. Also the effect of an unpolled run on others.

use std::pin::pin;

use async_map_task::Limiter;
use futures::{poll, stream};
use tokio::time::{Instant, sleep, timeout};

use crate::every_end::{End, Plan};
use crate::support::{HOUR, Log, after, at_once, millis, secs};

/// Returns items with their weights as values, which take ten seconds each. The log has their starts.
fn heavy_items(limiter: &Limiter, items: &[u64]) -> (Plan, Log<u64>) {
    Plan::of_weights(&at_once(9).limiter(limiter).build().unwrap(), items, secs(10))
}

#[tokio::test(start_paused = true)]
async fn rule_47_an_item_above_a_lowered_limit_starts_alone() {
    for end in End::all() {
        let limiter = Limiter::new(4);
        let (plan, log) = heavy_items(&limiter, &[1, 2, 4, 1, 1]);
        let run = tokio::spawn(plan.run(end));
        sleep(secs(1)).await;
        limiter.set_permits(2);
        sleep(secs(14)).await;
        assert_eq!((limiter.in_use(), limiter.permits()), (4, 2), "{end:?}");
        let report = timeout(HOUR, run).await.expect("the run hangs").unwrap();
        assert_eq!((report.reason, report.summary.successes), (None, 5), "{end:?}");
        assert_eq!(log.timed(), [(0, 1), (0, 2), (10_000, 4), (20_000, 1), (20_000, 1)], "{end:?}");
        assert_eq!(limiter.in_use(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_47_a_new_run_above_a_lowered_limit_waits_for_all() {
    for end in End::all() {
        let limiter = Limiter::new(4);
        limiter.set_permits(2);
        let (light, light_log) = heavy_items(&limiter, &[1, 1, 1, 1]);
        let light = tokio::spawn(light.run(end));
        sleep(secs(1)).await;
        // It joins the queue behind the third light item.
        let (heavy, heavy_log) = heavy_items(&limiter, &[3]);
        let heavy = tokio::spawn(heavy.run(end));
        for run in [light, heavy] {
            let report = timeout(HOUR, run).await.expect("a run hangs").unwrap();
            assert_eq!(report.reason, None, "{end:?}");
        }
        // At 10 s the third starts. The heavy one is next, so the fourth does not start beside the third.
        assert_eq!(light_log.times(), [0, 0, 10_000, 30_000], "{end:?}");
        assert_eq!(heavy_log.timed(), [(19_000, 3)], "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_47_a_limit_of_zero_stops_every_start() {
    for end in End::all() {
        let limiter = Limiter::new(2);
        let (running, log) = heavy_items(&limiter, &[2, 1, 1]);
        let running = tokio::spawn(running.run(end));
        sleep(secs(1)).await;
        limiter.set_permits(0);
        let (waiting, waiting_log) = heavy_items(&limiter, &[2]);
        let waiting = tokio::spawn(waiting.run(end));
        sleep(HOUR).await;
        assert_eq!((limiter.in_use(), log.lines(), waiting_log.lines()), (0, vec![2], vec![]), "{end:?}");
        limiter.set_permits(1);
        for run in [running, waiting] {
            let report = timeout(HOUR, run).await.expect("a run hangs").unwrap();
            assert_eq!(report.reason, None, "{end:?}");
        }
        assert_eq!((log.lines().len(), waiting_log.lines().len()), (3, 1), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_47_a_weight_above_the_largest_limit_ends_the_run() {
    for end in End::all() {
        let limiter = Limiter::new(2);
        limiter.set_permits(5);
        limiter.set_permits(1);
        let (plan, log) = heavy_items(&limiter, &[5, 6, 1]);
        let report = timeout(HOUR, plan.run(end)).await.expect("the run hangs");
        let reason = report.reason.expect("6 permits were never there");
        for part in ["Config(", "weight", "\"6\"", "at most 5", "permits that the limiter has had"] {
            assert!(reason.contains(part), "{reason}: {part}");
        }
        let summary = &report.summary;
        assert_eq!([summary.successes + summary.cancelled, summary.not_started], [1, 2], "{end:?}");
        assert_eq!((log.lines(), limiter.in_use()), (vec![5], 0), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_47_a_limiter_that_never_had_a_permit_is_an_error() {
    for end in End::all() {
        let limiter = Limiter::new(0);
        let task = at_once(4).limiter(&limiter).build().unwrap();
        let plan = || Plan::new(&task, stream::iter([1, 1]), |_, n| after(secs(1), Ok(n)));
        let report = timeout(HOUR, plan().run(end)).await.expect("the run hangs");
        let reason = report.reason.expect("it can start nothing");
        assert!(
            reason.contains("Limiter::new(0)") && reason.contains("created with at least 1 permit"),
            "{reason}"
        );
        assert!(!reason.contains("weight"), "{reason}: the run has no weights");
        assert_eq!(report.summary.not_started, 2, "{end:?}");
        limiter.set_permits(1);
        assert_eq!(plan().run(end).await.summary.successes, 2, "{end:?}");
    }
    let task = at_once(4).limiter(&Limiter::new(0)).build().unwrap();
    let error = task.run([()], async |()| Ok::<_, String>(())).await.unwrap_err();
    assert_eq!(
        error.reason().to_string(),
        "limiter must be created with at least 1 permit, got Limiter::new(0)"
    );
}

/// Executes a run of that many items, each of which takes a second. Returns the number of successes.
async fn run_items(count: usize, limiter: Limiter) -> usize {
    let task = at_once(4).limiter(&limiter).build().unwrap();
    task.run(0..count, |_| after(secs(1), Ok::<_, String>(()))).await.unwrap().successes()
}

#[tokio::test(start_paused = true)]
async fn rule_40_a_run_that_is_not_polled_blocks_its_limiter() {
    for is_dropped in [false, true] {
        let limiter = Limiter::new(1);
        let holder = tokio::spawn(run_items(1, limiter.clone()));
        sleep(millis(1)).await;
        let mut first = Box::pin(run_items(10, limiter.clone()));
        assert!(poll!(&mut first).is_pending());
        assert_eq!(holder.await.unwrap(), 1);
        assert_eq!(limiter.in_use(), 1, "the first run was granted the permit, and it was not polled since");
        // As in the body of a branch of `select!`, the first run is not polled meanwhile.
        let mut second = pin!(run_items(10, limiter.clone()));
        assert!(timeout(HOUR, &mut second).await.is_err(), "the second run waits for the first");
        let begun = Instant::now();
        if is_dropped {
            drop(first);
            assert_eq!((second.await, begun.elapsed()), (10, secs(10)));
        } else {
            assert_eq!(tokio::join!(first, second), (10, 10));
            assert_eq!(begun.elapsed(), secs(20));
        }
        assert_eq!(limiter.in_use(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_40_a_spawned_run_blocks_no_other() {
    let limiter = Limiter::new(1);
    let task = at_once(4).limiter(&limiter).build().unwrap();
    let call = |_| after(secs(1), Ok::<_, String>(()));
    let mut first = task.run(0..10, call).spawn();
    let mut seconds = Vec::new();
    let result = loop {
        tokio::select! {
            biased;
            result = &mut first => break result.unwrap(),
            () = sleep(millis(2_500)) => {
                seconds.push(task.run(0..2, call).await.unwrap().successes());
            }
        }
    };
    assert_eq!((result.successes(), limiter.in_use()), (10, 0));
    assert!(seconds.len() > 1 && seconds.iter().all(|successes| *successes == 2), "{seconds:?}");
}
