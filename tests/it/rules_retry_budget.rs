//! Rule 42: a budget for the retries of all items, which several tasks and runs share. Here it refuses; see also
//! `rules_retry_budget_waits`.

use std::cell::Cell;
use std::fmt::Debug;
use std::future::pending;
use std::thread;
use std::time::Duration;

use async_map_task::{
    AsyncMapTask, AsyncMapTaskBuilder, RetryBudget, RetryBudgetBuilder, Summary, TimeoutScope, WhenSpent,
};
use futures::future::join_all;
use futures::stream;
use tracing::level_filters::LevelFilter;

use crate::every_end::{End, Plan, Report};
use crate::recorded_trace::listen;
use crate::support::{after, check_summary, failed, in_time, lenient, millis, secs, timed_out, workers};

/// A budget without any retry that no first attempt has earned, with the longest window.
pub(crate) fn only_earned(ratio: f64) -> RetryBudgetBuilder {
    RetryBudget::builder().ratio(ratio).min_per_second(0).window(secs(60))
}

/// The retries that a budget has granted in its window.
pub(crate) fn charged(budget: &RetryBudget) -> u64 {
    count("retries", budget)
}

/// A number in the debug form of a budget.
fn count(field: &str, budget: &RetryBudget) -> u64 {
    let text = format!("{budget:?}");
    let (_, rest) = text.split_once(&format!(" {field}: ")).unwrap();
    rest.split([',', ' ']).next().unwrap().parse().unwrap()
}

/// Any number of failures is fine, and a retry has no delay.
pub(crate) fn immediate(budget: &RetryBudget) -> AsyncMapTaskBuilder {
    lenient().retry_delay(Duration::ZERO).retries(1_000).retry_budget(budget)
}

/// A run of items that all fail, each time.
fn dead(task: &AsyncMapTask, items: u64) -> Plan {
    Plan::new(task, stream::iter(0..items), |_, _| async { Err("down") })
}

#[tokio::test(start_paused = true)]
async fn rule_42_a_run_gets_exactly_its_share() {
    for (ratio, numerator, denominator) in [
        (0.05, 1, 20),
        (0.1, 1, 10),
        (0.2, 1, 5),
        (0.3, 3, 10),
        (0.4, 2, 5),
        (0.6, 3, 5),
        (1.0, 1, 1),
        (2.5, 5, 2),
    ] {
        for end in End::all() {
            for items in [19, 200] {
                let budget = only_earned(ratio).build().unwrap();
                let task = immediate(&budget).build().unwrap();
                let Report { summary, .. } = in_time(dead(&task, items).run(end)).await;
                let expected = items * numerator / denominator;
                assert_eq!(summary.retries as u64, expected, "{ratio} of {items}: {end:?}");
                assert_eq!(summary.retries_refused as u64, items, "{ratio} of {items}: {end:?}");
                assert_eq!((count("first_attempts", &budget), charged(&budget)), (items, expected));
                check_summary(&summary);
            }
        }
    }
}

/// Executes a run of 1,000 items against a server that is down.
async fn against_a_dead_server(builder: AsyncMapTaskBuilder) -> Summary {
    let task = builder.concurrency(16).retries(3).build().unwrap();
    let run = task.run(0..1_000, |_| after(millis(10), Err::<(), _>("down")));
    run.await.unwrap().summary
}

#[tokio::test(start_paused = true)]
async fn rule_42_a_dead_server_gets_little_more_than_one_attempt_an_item() {
    let without = against_a_dead_server(lenient()).await;
    assert_eq!((without.retries, without.retries_refused), (3_000, 0), "4.00 attempts an item");
    // All within one window of 10 s: 0.2 of 1,000, and 10 a second.
    let budget = RetryBudget::builder().build().unwrap();
    let with = against_a_dead_server(lenient().retry_budget(&budget)).await;
    assert_eq!((with.retries, with.retries_refused), (200 + 100, 1_000), "1.30 attempts an item");
    assert!(with.elapsed < secs(10), "{with}");
    assert!(with.to_string().ends_with(", 1000 refused a retry"), "{with}");
}

#[tokio::test(start_paused = true)]
async fn rule_42_the_log_and_the_error_state_the_cause() {
    let (memory, _guard) = listen(LevelFilter::DEBUG);
    let budget = only_earned(0.5).build().unwrap();
    let builder = AsyncMapTask::builder().name("ask").concurrency(1).retries(1).retry_budget(&budget);
    let task = builder.retry_delay(Duration::ZERO).build().unwrap();
    let run = task.run(0..3, |_| async { Err::<(), _>("down") });
    let error = run.await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "ask: 1 of 3 items failed, 0 allowed, the retry budget refused 1 retry; item 0 failed first, after 1 \
         attempt: down"
    );
    let lines = memory.events("item failed");
    let whys: Vec<_> = lines.iter().map(|told| told.fields.get("why").unwrap()).collect();
    assert_eq!(whys, ["the retry budget is spent"]);
    // The error of the ends that keep no results states it, too.
    let error = task.to_builder().min_successes(1).build().unwrap();
    let error = error.run(0..2, |_| async { Err::<(), _>("down") }).for_each(async |_| ()).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("2 of 2 items failed, 1 allowed, the retry budget refused 1 retry; item "),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn rule_42_a_retry_is_charged_only_if_everything_else_allows_it() {
    let budget = only_earned(10.0).build().unwrap();
    let builder = || lenient().retries(1).retry_budget(&budget);
    let is_charged = |result: Summary, what: &str| {
        assert_eq!((charged(&budget), result.retries, result.retries_refused), (0, 0, 0), "{what}");
    };
    let run = builder().build().unwrap();
    let run = run.run([()], |()| async { Err::<(), _>("no") }).retry_if(|_| false);
    is_charged(run.await.unwrap().summary, "an error that retry_if refuses");
    let run = builder().build().unwrap();
    let run = run.run([()], |()| async { if true { panic!("no") } else { Err::<(), &str>("") } });
    is_charged(run.await.unwrap().summary, "a panic");
    let run = builder().timeout_per_item(secs(1)).build().unwrap();
    let run = run.run([()], |()| async { Err::<(), _>("no") });
    is_charged(run.await.unwrap().summary, "a retry after the time limit of the item");
    let run = builder().run_timeout(secs(1)).build().unwrap();
    let run = run.run([()], |()| async { Err::<(), _>("no") });
    is_charged(run.await.unwrap().summary, "a retry after the time limit of the run");
    let run = builder().timeout_per_attempt(secs(1)).retry_timeouts(false).build().unwrap();
    let run = run.run([()], |()| pending::<Result<(), &str>>());
    is_charged(run.await.unwrap().summary, "a timeout that is not retried");
    let run = builder().retries(0).build().unwrap();
    let run = run.run([()], |()| async { Err::<(), _>("no") });
    is_charged(run.await.unwrap().summary, "no retries left");
    assert_eq!(count("first_attempts", &budget), 6);
}

#[tokio::test(start_paused = true)]
async fn rule_42_a_timeout_keeps_its_error_if_the_budget_is_spent() {
    let budget = only_earned(0.0).build().unwrap();
    let task = lenient().retries(3).timeout_per_attempt(secs(1)).retry_budget(&budget).build().unwrap();
    let result = task.run([()], |()| pending::<Result<(), &str>>()).await.unwrap();
    assert_eq!(result.errors[&0], timed_out(secs(1), TimeoutScope::Attempt, 1));
    assert_eq!((result.summary.elapsed, result.summary.retries_refused), (secs(1), 1));
}

#[tokio::test(start_paused = true)]
async fn rule_42_running_attempts_and_granted_retries_are_not_affected() {
    let budget = RetryBudget::builder().ratio(0.0).min_per_second(1).window(secs(1)).build().unwrap();
    let task = lenient().concurrency(20).retries(1).retry_budget(&budget).build().unwrap();
    let run = task.over(0..20).map_with_context(|cx, n| async move {
        match (n, cx.attempt()) {
            (0, _) => after(secs(5), Ok(n)).await,
            // The only one that is granted: it begins a second later.
            (1, 1) => Err("down"),
            (1, _) => after(secs(5), Ok(n)).await,
            _ => Err("down"),
        }
    });
    let result = run.await.unwrap();
    assert_eq!(result.successful_results().collect::<Vec<_>>(), [&0, &1]);
    assert_eq!((result.summary.retries, result.summary.retries_refused), (1, 18));
    assert_eq!(result.summary.elapsed, secs(6));
    assert_eq!(result.errors[&2], failed("down", 1));
}

#[tokio::test(start_paused = true)]
async fn rule_42_an_item_without_an_attempt_earns_nothing() {
    let task = lenient().build().unwrap();
    let run = task.run(0..100, |n| async move { if n < 95 { Ok(n) } else { Err("no") } });
    let previous = run.await.unwrap();
    let budget = only_earned(1.0).build().unwrap();
    let task = immediate(&budget).build().unwrap();
    let result = task.run(0..100, |_| async { Err::<i32, _>("no") }).redo(previous).await.unwrap();
    assert_eq!((result.summary.carried, result.summary.retries), (95, 5));
    assert_eq!((count("first_attempts", &budget), charged(&budget)), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn rule_42_a_task_that_is_derived_shares_the_budget() {
    let budget = only_earned(1.0).build().unwrap();
    let task = immediate(&budget).build().unwrap();
    let derived = task.to_builder().concurrency(1).build().unwrap();
    derived.run(0..10, |_| async { Ok::<_, String>(()) }).await.unwrap();
    let result = task.run([()], |()| async { Err::<(), _>("no") }).await.unwrap();
    assert_eq!((result.summary.retries, result.summary.retries_refused), (11, 1));
    assert_eq!(charged(&budget.clone()), 11, "a clone is the same budget");
}

#[tokio::test(start_paused = true)]
async fn rule_42_events_leave_the_window() {
    let budget = RetryBudget::builder().ratio(0.5).min_per_second(0).window(millis(1_500)).build().unwrap();
    let task = immediate(&budget).build().unwrap();
    let retries = async |items| dead(&task, items).run(End::all().next().unwrap()).await.summary.retries;
    assert_eq!(retries(9).await, 4);
    tokio::time::sleep(millis(1_499)).await;
    assert_eq!(retries(1).await, 1, "the ninth half is still there");
    tokio::time::sleep(millis(1)).await;
    assert_eq!(retries(1).await, 0, "two first attempts, and one retry");
}

#[tokio::test(start_paused = true)]
async fn rule_42_runs_share_one_budget_exactly() {
    let budget = only_earned(0.3).build().unwrap();
    let one = immediate(&budget).build().unwrap();
    let other = immediate(&budget).concurrency(7).build().unwrap();
    let runs = End::all().flat_map(|end| [dead(&one, 101).run(end), dead(&other, 53).run(end)]);
    let summaries: Vec<_> = join_all(runs).await.into_iter().map(|report| report.summary).collect();
    let items = 154 * End::all().count();
    assert_eq!(summaries.iter().map(|summary| summary.total).sum::<usize>(), items);
    assert_eq!(summaries.iter().map(|summary| summary.retries).sum::<usize>(), items * 3 / 10);
    assert_eq!(summaries.iter().map(|summary| summary.retries_refused).sum::<usize>(), items);
}

#[test]
fn rule_42_two_runtimes_share_one_budget_exactly() {
    let budget = only_earned(0.3).build().unwrap();
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let task = immediate(&budget).concurrency(8).build().unwrap();
            thread::spawn(move || {
                let run = async move {
                    let run = task.run(0..3_000, |_| async {
                        tokio::task::yield_now().await;
                        Err::<(), _>("down")
                    });
                    run.parallel().await.unwrap().summary
                };
                workers(2).block_on(run)
            })
        })
        .collect();
    let summaries: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(summaries.iter().map(|summary| summary.retries).sum::<usize>(), 1_800);
    assert_eq!((count("first_attempts", &budget), charged(&budget)), (6_000, 1_800));
}

#[tokio::test(start_paused = true)]
async fn rule_42_panics_of_a_task_do_not_break_the_budget() {
    let budget = only_earned(1.0).build().unwrap();
    let task = immediate(&budget).build().unwrap();
    let calls = Cell::new(0);
    let run = task.run(0..10, |n| {
        calls.set(calls.get() + 1);
        assert!(n % 2 == 0, "odd");
        async { Err::<(), _>("even") }
    });
    let result = run.await.unwrap();
    assert_eq!((result.summary.panics, result.summary.retries, calls.get()), (5, 10, 20));
}

#[test]
fn rule_42_the_errors_of_the_builder() {
    let builder = RetryBudget::builder;
    for (built, text) in [
        (builder().ratio(-0.1), "ratio must be between 0 and 10, got -0.1"),
        (builder().ratio(10.5), "ratio must be between 0 and 10, got 10.5"),
        (builder().ratio(f64::NAN), "ratio must be between 0 and 10, got NaN"),
        (builder().ratio(f64::INFINITY), "ratio must be between 0 and 10, got inf"),
        (builder().window(millis(999)), "window must be between 1s and 60s, got 999ms"),
        (builder().window(millis(60_001)), "window must be between 1s and 60s, got 60.001s"),
        (
            builder().min_per_second(0).when_spent(WhenSpent::Wait),
            "min_per_second must be at least 1 with WhenSpent::Wait, because a retry could wait for ever, got 0",
        ),
    ] {
        let error = built.build().unwrap_err();
        assert_eq!(error.to_string(), text);
        assert!(text.starts_with(error.field()));
    }
    for built in [
        builder(),
        builder().ratio(0.0).min_per_second(0),
        builder().ratio(10.0).min_per_second(u32::MAX).window(secs(60)),
        builder().window(secs(1)).min_per_second(1).when_spent(WhenSpent::Wait),
    ] {
        assert!(built.build().is_ok());
    }
}

#[test]
fn rule_42_a_budget_is_shared_freely() {
    fn shared<T: Clone + Send + Sync + Unpin + Debug + 'static>(_: &T) {}

    let budget = RetryBudget::builder().build().unwrap();
    shared(&budget);
    assert_eq!(
        format!("{budget:?}"),
        "RetryBudget { ratio: 0.2, min_per_second: 10, window: 10s, when_spent: Fail, first_attempts: 0, \
         retries: 0 }"
    );
}
