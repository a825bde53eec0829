//! Rule 42 with `WhenSpent::Wait`: items wait until the budget grants their retries.

use std::collections::BTreeSet;
use std::time::Duration;

use async_map_task::{AsyncMapTaskBuilder, Event, FailureReason, RetryBudget, RetryBudgetBuilder, WhenSpent};
use futures::stream::{self, StreamExt};
use futures::{FutureExt, poll};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;

use crate::every_end::{End, Plan, Terminal};
use crate::recorded_trace::listen;
use crate::rules_retry_budget::{charged, immediate};
use crate::support::{
    Log, after, at_once, cancelled_after, check_account, failed, in_time, lenient, let_others_run, millis,
    secs,
};

/// A budget that grants one retry in each second, and never more.
fn one_a_second() -> RetryBudget {
    waits().window(secs(1)).build().unwrap()
}

fn waits() -> RetryBudgetBuilder {
    RetryBudget::builder().ratio(0.0).min_per_second(1).when_spent(WhenSpent::Wait)
}

/// A budget of 60 retries a minute, which are granted at the start.
async fn spent() -> RetryBudget {
    let budget = waits().window(secs(60)).build().unwrap();
    let result = flaky(&immediate(&budget), 60).await;
    assert_eq!((result, charged(&budget)), (60, 60));
    budget
}

/// Executes a run of items that fail once. Returns the number of successes.
async fn flaky(builder: &AsyncMapTaskBuilder, items: usize) -> usize {
    let task = builder.clone().build().unwrap();
    let run = task
        .over(0..items)
        .map_with_context(|cx, n| async move { if cx.attempt() == 1 { Err("busy") } else { Ok(n) } });
    run.await.unwrap().successes()
}

/// A run of items that fail once. The log has the number of each attempt.
fn flaky_plan(builder: AsyncMapTaskBuilder, items: u64) -> (Plan, Log<(u64, u32)>) {
    let (task, log) = (builder.build().unwrap(), Log::open());
    let notes = log.clone();
    let plan = Plan::new(&task, stream::iter(0..items), move |cx, n| {
        notes.note((n, cx.attempt()));
        async move { if cx.attempt() == 1 { Err("busy") } else { Ok(n) } }
    });
    (plan, log)
}

/// The retries in a log, with their times.
fn retries_of(log: &Log<(u64, u32)>) -> Vec<(u64, u64)> {
    let retries = log.timed().into_iter().filter(|(_, (_, attempt))| *attempt > 1);
    retries.map(|(at, (n, _))| (at, n)).collect()
}

#[tokio::test(start_paused = true)]
async fn rule_42_items_wait_in_their_order_until_the_budget_has_room() {
    for end in End::all() {
        let budget = waits().window(secs(2)).build().unwrap();
        let (plan, log) = flaky_plan(immediate(&budget).concurrency(1), 7);
        let report = in_time(plan.run(end)).await;
        assert_eq!((report.summary.successes, report.summary.retries_refused), (7, 0), "{end:?}");
        let expected = [(0, 0), (0, 1), (2_000, 2), (2_000, 3), (4_000, 4), (4_000, 5), (6_000, 6)];
        assert_eq!(retries_of(&log), expected, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_42_no_window_has_more_retries_than_the_budget() {
    for end in End::all() {
        let window = 3_000;
        let budget = RetryBudget::builder()
            .ratio(0.3)
            .min_per_second(1)
            .window(millis(window))
            .when_spent(WhenSpent::Wait)
            .build()
            .unwrap();
        // There are permits for all, so a retry begins when it is granted.
        let (task, log) = (immediate(&budget).concurrency(500).build().unwrap(), Log::open());
        let notes = log.clone();
        let items = stream::iter(0..300_u64).then(|n| after(millis(n * 7 % 50), n));
        let plan = Plan::new(&task, items, move |cx, n| {
            notes.note((n, cx.attempt()));
            after(millis(n % 13), if u64::from(cx.attempt()) <= n % 3 { Err("busy") } else { Ok(n) })
        });
        let report = in_time(plan.run(end)).await;
        assert_eq!((report.summary.successes, report.summary.retries), (300, 300), "{end:?}");
        let starts = log.timed();
        for (at, _) in starts.iter().filter(|(_, (_, attempt))| *attempt > 1) {
            let within = || starts.iter().filter(|(start, _)| start <= at && at - start < window);
            let retries = within().filter(|(_, (_, attempt))| *attempt > 1).count();
            let firsts = within().count() - retries;
            let allowed = firsts * 3 / 10 + 3;
            assert!(retries <= allowed, "{retries} retries at {at}, {allowed} allowed: {end:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_42_an_item_that_waits_holds_no_permit() {
    for end in End::all().filter(|end| !end.ordered) {
        let (task, log) = (immediate(&one_a_second()).concurrency(1).build().unwrap(), Log::open());
        let notes = log.clone();
        let plan = Plan::new(&task, stream::iter(0..20), move |cx, n| {
            notes.note((n, cx.attempt()));
            after(millis(10), if n < 4 && cx.attempt() == 1 { Err("busy") } else { Ok(n) })
        });
        let report = in_time(plan.run(end)).await;
        assert_eq!(report.summary.successes, 20, "{end:?}");
        let firsts: Vec<_> = log.timed().into_iter().filter(|(_, (_, attempt))| *attempt == 1).collect();
        assert!(firsts.len() == 20 && firsts.iter().all(|(at, _)| *at <= 200), "{end:?}: {firsts:?}");
        let granted: Vec<_> = retries_of(&log).into_iter().map(|(_, n)| n).collect();
        assert_eq!(granted, [0, 1, 2, 3], "{end:?}");
        assert_eq!(report.summary.elapsed.as_secs(), 3, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_42_items_that_wait_are_held() {
    let log = Log::open();
    let task = immediate(&one_a_second()).concurrency(1).look_ahead(2).build().unwrap();
    let run = task.over(0..8).map_with_context(|cx, n| {
        log.note((n, cx.attempt()));
        async move { if cx.attempt() == 1 { Err("busy") } else { Ok(n) } }
    });
    let mut handle = Box::pin(run);
    assert!(poll!(&mut handle).is_pending());
    // The first was granted its retry, and the next two fill the window.
    assert_eq!(log.lines(), [(0, 1), (1, 1), (0, 2), (2, 1)]);
    assert_eq!(in_time(handle).await.unwrap().successes(), 8);
}

#[tokio::test(start_paused = true)]
async fn rule_42_the_delay_is_not_added_to_the_wait() {
    // The first is granted its retry at once. The second is granted at 1 s, within its delay, and the third at 2 s.
    let (plan, log) = flaky_plan(immediate(&one_a_second()).retry_delay(millis(1_500)), 4);
    in_time(plan.run(End::all().next().unwrap())).await;
    assert_eq!(retries_of(&log), [(1_500, 0), (1_500, 1), (2_000, 2), (3_000, 3)]);
}

#[tokio::test(start_paused = true)]
async fn rule_42_first_attempts_of_the_run_let_its_items_continue() {
    for end in End::all() {
        let budget = RetryBudget::builder()
            .ratio(0.5)
            .min_per_second(1)
            .window(secs(60))
            .when_spent(WhenSpent::Wait)
            .build()
            .unwrap();
        // 160 first attempts and 60 a minute: 140 retries. The other 60 need the 120 items that come ten seconds later.
        let task = immediate(&budget).look_ahead(1_000).build().unwrap();
        let items = stream::iter(0..280_u64).then(|n| after(secs(if n == 160 { 10 } else { 0 }), n));
        let plan = Plan::new(&task, items, |cx, n| async move {
            if n < 100 && cx.attempt() < 3 { Err("busy") } else { Ok(n) }
        });
        let report = in_time(plan.run(end)).await;
        let summary = &report.summary;
        assert_eq!(
            (summary.successes, summary.retries, summary.elapsed.as_secs()),
            (280, 200, 10),
            "{end:?}"
        );
        assert_eq!(charged(&budget), 200, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_42_runs_that_wait_share_each_retry() {
    for end in End::all() {
        let budget = one_a_second();
        let builder = immediate(&budget);
        let (one, log) = flaky_plan(builder.clone(), 5);
        let (other, other_log) = flaky_plan(builder, 5);
        let (one, other) = in_time(async { tokio::join!(one.run(end), other.run(end)) }).await;
        assert_eq!((one.summary.retries, other.summary.retries), (5, 5), "{end:?}");
        let mut starts = [retries_of(&log), retries_of(&other_log)].concat();
        starts.sort_unstable();
        let times: Vec<_> = starts.iter().map(|(at, _)| *at).collect();
        assert_eq!(times, (0..10).map(|second| second * 1_000).collect::<Vec<_>>(), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_42_the_time_limit_of_an_item_ends_its_wait() {
    for end in End::all() {
        let (memory, _guard) = listen(LevelFilter::DEBUG);
        let budget = spent().await;
        let (plan, log) = flaky_plan(immediate(&budget).retries(1).timeout_per_item(secs(5)), 3);
        let report = in_time(plan.run(end)).await;
        assert_eq!(report.outcomes.len(), 3, "{end:?}");
        assert!(report.outcomes.iter().all(|(_, result)| *result == Err(failed("busy", 1))), "{end:?}");
        let summary = &report.summary;
        assert_eq!((summary.elapsed, summary.failures, summary.retries_refused), (secs(5), 3, 3), "{end:?}");
        assert_eq!((log.lines().len(), charged(&budget)), (3, 60), "{end:?}");
        if !end.parallel {
            let whys = memory.events("item failed");
            let whys: BTreeSet<_> = whys.iter().map(|told| told.fields.get("why").unwrap()).collect();
            let why = "the retry budget was spent until the item's time limit had passed";
            assert_eq!(whys, BTreeSet::from([why]), "{end:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_42_a_cancellation_ends_the_wait() {
    for end in End::all() {
        let budget = spent().await;
        let (plan, _) = flaky_plan(immediate(&budget), 3);
        let report = in_time(plan.token(&cancelled_after(secs(5))).run(end)).await;
        let summary = &report.summary;
        assert_eq!(report.reason.as_deref(), Some("Cancelled"), "{end:?}");
        assert_eq!((summary.elapsed, summary.cancelled, summary.retries_refused), (secs(5), 3, 0), "{end:?}");
        assert_eq!(charged(&budget), 60, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_42_the_time_limit_of_the_run_ends_the_wait() {
    for end in End::all() {
        let budget = spent().await;
        let (plan, _) = flaky_plan(immediate(&budget).run_timeout(secs(5)), 3);
        let report = in_time(plan.run(end)).await;
        let summary = &report.summary;
        assert!(report.reason.unwrap().starts_with("TimedOut"), "{end:?}");
        assert_eq!((summary.elapsed, summary.cancelled, summary.retries_refused), (secs(5), 3, 0), "{end:?}");
        assert_eq!(charged(&budget), 60, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_42_a_drain_ends_the_wait_and_waits_for_running_attempts() {
    for parallel in [false, true] {
        let budget = spent().await;
        let task = immediate(&budget).build().unwrap();
        let token = CancellationToken::new();
        let run = task
            .over(0..4_u64)
            .map(|n| after(secs(if n == 3 { 9 } else { 0 }), if n == 3 { Ok(n) } else { Err("busy") }))
            .drain_token(token.clone());
        let drained = async { sleep(secs(5)).map(|()| token.cancel()).await };
        let error = if parallel {
            tokio::join!(run.parallel(), drained).0.unwrap_err()
        } else {
            tokio::join!(run, drained).0.unwrap_err()
        };
        assert!(matches!(error.reason(), FailureReason::Cancelled), "{error}");
        let result = error.into_partial();
        check_account(&result);
        assert_eq!((result.successes(), result.cancelled(), result.summary.elapsed), (1, 3, secs(9)));
        assert_eq!((charged(&budget), result.summary.retries_refused), (60, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn rule_42_a_dropped_run_leaves_the_budget_to_others() {
    // A run in the background continues without its handle.
    for end in End::all().filter(|end| end.terminal != Terminal::Spawn) {
        let budget = spent().await;
        let (plan, log) = flaky_plan(immediate(&budget), 3);
        let mut run = Box::pin(plan.run(end));
        assert!(poll!(&mut run).is_pending());
        let_others_run().await;
        drop(run);
        sleep(secs(100)).await;
        assert_eq!((retries_of(&log).len(), charged(&budget)), (0, 0), "{end:?}");
        assert_eq!(in_time(flaky(&immediate(&budget), 60)).await, 60, "{end:?}");
        assert_eq!(charged(&budget), 60, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_42_a_paused_run_asks_for_nothing() {
    for end in End::of(Terminal::Spawn) {
        let budget = spent().await;
        let (plan, log) = flaky_plan(immediate(&budget), 3);
        let handle = plan.spawn(end);
        sleep(secs(5)).await;
        assert_eq!(handle.progress().waiting_for_retry, 3, "{end:?}");
        handle.pause();
        // The budget has room from 60 s on.
        sleep(secs(95)).await;
        assert_eq!((charged(&budget), retries_of(&log).len()), (0, 0), "{end:?}");
        handle.resume();
        let result = in_time(handle).await.unwrap();
        assert_eq!((result.successes(), result.summary.elapsed), (3, secs(100)), "{end:?}");
        assert_eq!(charged(&budget), 3, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_42_an_early_success_ends_the_wait() {
    let budget = spent().await;
    let task = immediate(&budget).min_successes(1).early_success(true).build().unwrap();
    let run = task.run([3, 0], |wait| after(secs(wait), if wait == 3 { Ok(()) } else { Err("busy") }));
    let result = in_time(run).await.unwrap();
    assert_eq!((result.successes(), result.cancelled(), result.summary.elapsed), (1, 1, secs(3)));
}

#[tokio::test(start_paused = true)]
async fn rule_42_an_event_has_the_delay_without_the_wait() {
    let delays = Log::open();
    let task = lenient().retries(1).retry_budget(&spent().await).build().unwrap();
    let run = task
        .over([()])
        .map_with_context(|cx, ()| async move { if cx.attempt() == 1 { Err("busy") } else { Ok(()) } })
        .observe(|event: &Event<'_>| {
            if let Event::AttemptFailed { retry_in, .. } = event {
                delays.note(*retry_in);
            }
        });
    let result = in_time(run).await.unwrap();
    assert_eq!((delays.lines(), result.summary.elapsed), (vec![Some(secs(1))], secs(60)));
}

#[tokio::test(start_paused = true)]
async fn rule_42_a_budget_with_room_makes_no_item_wait() {
    let budget = waits().min_per_second(1_000).build().unwrap();
    let with = in_time(flaky(&immediate(&budget).concurrency(16), 5_000)).await;
    assert_eq!((with, charged(&budget)), (5_000, 5_000));
    let without = flaky(&at_once(16).retries(1).retry_delay(Duration::ZERO), 5_000).await;
    assert_eq!(without, 5_000);
}
