//! Rule 4 in detail: weights, the shared limit, its fairness, its resizing, and items that can never start.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use async_map_task::{AsyncMapTaskBuilder, ItemContext, Limiter};
use futures::{future, stream};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use crate::every_end::{End, Plan, Terminal};
use crate::support::{Gauge, HOUR, Log, after, at_once, millis, secs};

#[tokio::test(start_paused = true)]
async fn rule_04_light_items_do_not_starve_a_heavy_one() {
    for end in End::of(Terminal::Await) {
        let limiter = Limiter::new(4);
        let task = at_once(4).limiter(&limiter).build().unwrap();
        // The light items come and go one by one, so that all four permits are never free without a queue.
        let light = |_: ItemContext, n| after(millis(400 + 100 * (n % 4)), Ok(n));
        let busy = tokio::spawn(Plan::new(&task, stream::iter(0..400), light).run(end));
        sleep(secs(10)).await;
        let begun = Instant::now();
        let heavy = Plan::new(&task, stream::iter([4]), |_, n| after(secs(1), Ok(n))).weight(|_| 4);
        heavy.run(end).await;
        let waited = begun.elapsed() - secs(1);
        assert!(waited <= millis(700), "{end:?}: the heavy item waited {waited:?}, no light one runs longer");
        assert_eq!(busy.await.unwrap().summary.successes, 400, "{end:?}");
        assert_eq!(limiter.in_use(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_04_runs_that_share_a_limit_alternate() {
    for end in End::of(Terminal::Await) {
        let limiter = Limiter::new(1);
        let task = at_once(8).limiter(&limiter).build().unwrap();
        let log = Log::open();
        let run = |name: char| {
            let log = log.clone();
            let call = move |_: ItemContext, n| {
                log.note(name);
                after(secs(1), Ok(n))
            };
            tokio::spawn(Plan::new(&task, stream::iter(0..10), call).run(end))
        };
        for run in [run('a'), run('b'), run('c')] {
            run.await.unwrap();
        }
        let order: String = log.lines().into_iter().collect();
        // The first had its permit before the others came, and joined the queue again.
        assert_eq!(order, format!("a{}bc", "abc".repeat(9)), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_04_the_shared_limit_can_change_during_runs() {
    for end in End::all() {
        let limiter = Limiter::new(2);
        let task = at_once(50).limiter(&limiter).build().unwrap();
        let (plan, running, latch) = Plan::behind_a_latch(&task, 60);
        let run = tokio::spawn(plan.run(end));
        // The permits, the number of items that end then, and the number that run after that.
        for (permits, ends, expected) in [
            (2, 0, 2),
            (6, 0, 6),
            (3, 0, 6),
            (3, 2, 4),
            (3, 1, 3),
            (3, 1, 3),
            (1, 1, 2),
            (40, 0, 40),
            (9, 39, 9),
        ] {
            limiter.set_permits(permits);
            sleep(millis(1)).await;
            latch.add_permits(ends);
            sleep(millis(1)).await;
            let what = format!("{end:?}: {permits} permits, {ends} have ended");
            assert_eq!((running.now(), limiter.in_use()), (expected, expected), "{what}");
            assert_eq!(limiter.permits(), permits);
        }
        latch.add_permits(60);
        assert_eq!(run.await.unwrap().summary.successes, 60, "{end:?}: nothing that ran was killed");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_04_an_impossible_weight_ends_the_run() {
    let too_heavy = |limit: &str, weight: u32, most: usize, reason: Option<String>| {
        let reason = reason.expect("it fails");
        assert!(reason.starts_with("Config("), "{reason}");
        for word in ["weight", limit, &weight.to_string(), &most.to_string()] {
            assert!(reason.contains(word), "{reason}: {word}");
        }
    };
    for end in End::all() {
        let plan = |permits, concurrency, items: &[u64]| {
            let task = at_once(concurrency).limiter(&Limiter::new(permits)).build().unwrap();
            let call = |cx: ItemContext, n| after(secs(1 + cx.index() as u64), Ok(n));
            Plan::new(&task, stream::iter(items.to_vec()), call).weight(|n| n as u32)
        };
        // The first ends, and the third is next, while the second runs.
        let run = plan(100, 4, &[2, 2, 5, 1]).run(end);
        let report = timeout(HOUR, run).await.expect("the run hangs");
        too_heavy("concurrency", 5, 4, report.reason);
        let summary = &report.summary;
        assert_eq!([summary.successes, summary.cancelled, summary.not_started], [1, 1, 2], "{end:?}");
        assert_eq!(summary.elapsed, secs(1), "{end:?}");
        let report = timeout(HOUR, plan(3, 100, &[3, 4]).run(end)).await.expect("the run hangs");
        too_heavy("permits", 4, 3, report.reason);
        let report = plan(u32::MAX as usize, usize::MAX, &[u64::from(u32::MAX), 1]).run(end).await;
        assert_eq!((report.reason, report.summary.successes), (None, 2), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_47_items_above_a_lowered_concurrency_run_alone() {
    for end in End::of(Terminal::Spawn) {
        let (plan, log) = Plan::of_weights(&at_once(8).build().unwrap(), &[3, 3, 2, 3, 1, 1, 4], secs(1));
        let handle = plan.spawn(end);
        sleep(millis(500)).await;
        handle.set_concurrency(2);
        assert_eq!(timeout(HOUR, handle).await.expect("the run hangs").unwrap().successes(), 7, "{end:?}");
        let expected = [(0, 3), (0, 3), (0, 2), (1_000, 3), (2_000, 1), (2_000, 1), (3_000, 4)];
        assert_eq!(log.timed(), expected, "{end:?}");
    }
}

/// The permits that a heavy item took beyond the limit are not free for others when the limit is raised meanwhile.
#[tokio::test(start_paused = true)]
async fn rule_47_an_item_above_the_limit_has_its_whole_weight() {
    for end in End::of(Terminal::Spawn) {
        let (plan, log) = Plan::of_weights(&at_once(4).build().unwrap(), &[4, 3, 1, 1, 1], secs(10));
        let handle = plan.spawn(end);
        sleep(secs(1)).await;
        handle.set_concurrency(1);
        sleep(secs(10)).await;
        assert_eq!(log.lines(), [4, 3], "{end:?}");
        handle.set_concurrency(4);
        sleep(secs(1)).await;
        assert_eq!(log.lines(), [4, 3, 1], "{end:?}");
        handle.set_concurrency(2);
        assert_eq!(timeout(HOUR, handle).await.expect("the run hangs").unwrap().successes(), 5, "{end:?}");
        let expected = [(0, 4), (10_000, 3), (11_000, 1), (20_000, 1), (21_000, 1)];
        assert_eq!(log.timed(), expected, "{end:?}");
    }
}

/// A run of items with their weights as values, and with attempts that take as many seconds. The first attempts of some of
/// them fail. The log has the index and the number of each attempt.
fn failing_first(
    builder: AsyncMapTaskBuilder,
    items: &[u64],
    failing: &'static [usize],
) -> (Plan, Log<(usize, u32)>) {
    let log = Log::open();
    let notes = log.clone();
    let call = move |context: ItemContext, n| {
        let (index, attempt) = (context.index(), context.attempt());
        notes.note((index, attempt));
        let fails = attempt == 1 && failing.contains(&index);
        after(secs(n), if fails { Err("down") } else { Ok(n) })
    };
    let task = builder.retries(1).retry_jitter(0.0).build().unwrap();
    (Plan::new(&task, stream::iter(items.to_vec()), call).weight(|n| n as u32), log)
}

/// Two items fail first, one can start only alone in the run, and another run has a permit.
#[tokio::test(start_paused = true)]
async fn rule_47_a_heavy_item_counts_fully_after_a_raise() {
    for end in End::of(Terminal::Spawn) {
        let limiter = Limiter::new(4);
        let other = at_once(1).limiter(&limiter).build().unwrap();
        let other = other.over([()]).map(|()| after(secs(10), Ok::<_, String>(()))).spawn();
        yield_now().await;
        let (plan, log) =
            failing_first(at_once(4).limiter(&limiter).retry_delay(secs(5)), &[1, 1, 4], &[0, 1]);
        let handle = plan.spawn(end);
        sleep(secs(2)).await;
        handle.set_concurrency(1);
        sleep(secs(1)).await;
        handle.pause();
        sleep(secs(4)).await;
        handle.resume();
        assert_eq!(timeout(HOUR, handle).await.expect("the run hangs").unwrap().successes(), 3, "{end:?}");
        let expected = [(0, (0, 1)), (0, (1, 1)), (7_000, (0, 2)), (8_000, (1, 2)), (10_000, (2, 1))];
        assert_eq!(log.timed(), expected, "{end:?}");
        other.await.unwrap();
    }
}

/// The heavy item waits for the shared limit before its own limit is lowered.
#[tokio::test(start_paused = true)]
async fn rule_06_a_due_retry_passes_an_item_above_a_lowered_limit() {
    for end in End::of(Terminal::Spawn) {
        let limiter = Limiter::new(5);
        let builder = at_once(9).limiter(&limiter).retry_delay(secs(1));
        let (plan, log) = failing_first(builder, &[3, 1, 4], &[1]);
        let handle = plan.spawn(end);
        sleep(millis(2_500)).await;
        assert_eq!(
            (limiter.in_use(), log.lines().len()),
            (3, 2),
            "{end:?}: the heavy item is first in the queue"
        );
        handle.set_concurrency(6);
        assert_eq!(timeout(HOUR, handle).await.expect("the run hangs").unwrap().successes(), 3, "{end:?}");
        let expected = [(0, (0, 1)), (0, (1, 1)), (2_500, (1, 2)), (3_000, (2, 1))];
        assert_eq!(log.timed(), expected, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_47_a_weight_above_the_largest_concurrency_is_an_error() {
    for end in End::of(Terminal::Spawn) {
        let call = |_: ItemContext, n| after(secs(10), Ok(n));
        let plan = Plan::new(&at_once(2).build().unwrap(), stream::iter([2, 5, 6]), call);
        let handle = plan.weight(|n| n as u32).spawn(end);
        sleep(secs(1)).await;
        handle.set_concurrency(5);
        handle.set_concurrency(3);
        let error = timeout(HOUR, handle).await.expect("the run hangs").unwrap_err();
        assert_eq!(error.partial().successes(), 2, "{end:?}: {error}");
        assert!(error.to_string().contains("weight must be at most 5"), "{end:?}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_04_a_run_that_left_the_queue_blocks_no_other() {
    for end in End::of(Terminal::Await) {
        // Each in turn waits at the head of the queue and leaves it: dropped, paused, without a permit.
        for leaves in ["dropped", "paused"] {
            let limiter = Limiter::new(2);
            let task = at_once(4).limiter(&limiter).build().unwrap();
            let plan = |n: u64| Plan::new(&task, stream::iter([n]), |_, n| after(secs(60), Ok(n)));
            let holder = tokio::spawn(plan(1).run(end));
            sleep(millis(1)).await;
            let heavy = plan(2).weight(|n| n as u32).spawn(end);
            sleep(millis(1)).await;
            let light = tokio::spawn(plan(1).run(end));
            sleep(millis(1)).await;
            assert_eq!(limiter.in_use(), 1, "{end:?}: the light one waits behind the heavy one");
            if leaves == "dropped" {
                heavy.cancel()
            } else {
                heavy.pause()
            }
            sleep(millis(1)).await;
            assert_eq!(limiter.in_use(), 2, "{end:?}: the heavy one was {leaves}");
            heavy.resume();
            let begun = Instant::now();
            assert_eq!(heavy.await.is_ok(), leaves == "paused");
            assert_eq!(begun.elapsed() >= secs(100), leaves == "paused");
            holder.await.unwrap();
            light.await.unwrap();
            assert_eq!(limiter.in_use(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_07_two_runs_in_one_task_share_a_full_limit() {
    // Each run's items hold the whole limit, in turn; the sink of each waits until the other run progresses.
    for end in End::all() {
        let limiter = Limiter::new(2);
        let task = at_once(4).limiter(&limiter).timeout_per_attempt(secs(3)).build().unwrap();
        let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let plan = |me: usize| {
            let counts = Arc::clone(&counts);
            Plan::new(&task, stream::iter(0..20), |_, n| after(secs(2), Ok(n))).sink(move |_| {
                let counts = Arc::clone(&counts);
                let mine = counts[me].fetch_add(1, SeqCst);
                async move {
                    while counts[1 - me].load(SeqCst) + 2 < mine {
                        sleep(millis(10)).await;
                    }
                    Ok(())
                }
            })
        };
        let begun = Instant::now();
        let mut both = Box::pin(async { tokio::join!(plan(0).run(end), plan(1).run(end)) });
        let mut polls = 0;
        // Two runs that wake each other without a reason would keep a paused clock from advancing.
        let both = future::poll_fn(|cx| {
            polls += 1;
            assert!(polls < 100_000, "{end:?}: the runs spin");
            both.as_mut().poll(cx)
        });
        let (one, other) = timeout(HOUR, both).await.expect("the runs hang");
        for report in [one, other] {
            assert_eq!((report.summary.successes, report.summary.timeouts), (20, 0), "{end:?}");
        }
        assert_eq!(begun.elapsed(), secs(40), "{end:?}: 40 items, two at a time, two seconds each");
        assert_eq!(limiter.in_use(), 0);
    }
}

#[test]
fn rule_04_a_limit_holds_across_two_runtimes_in_two_threads() {
    let limiter = Limiter::new(3);
    let running = Gauge::default();
    let threads: Vec<_> = [0, 1]
        .into_iter()
        .flat_map(|_| End::of(Terminal::Await))
        .map(|end| {
            let (limiter, running) = (limiter.clone(), running.clone());
            thread::spawn(move || {
                let call = move |_: ItemContext, n| {
                    let running = running.clone();
                    async move {
                        let _alive = running.enter();
                        for _ in 0..n % 4 {
                            yield_now().await;
                        }
                        Ok(n)
                    }
                };
                run_here(&limiter, 0..2_000, end, call)
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), 2_000);
    }
    assert!((2..=3).contains(&running.peak()), "{} at once", running.peak());
    assert_eq!((running.ever(), running.now(), limiter.in_use()), (8_000, 0, 0));
}

/// Runs over the items in a runtime of this thread, and returns the number of successes.
fn run_here<Fut>(
    limiter: &Limiter,
    items: std::ops::Range<u64>,
    end: End,
    call: impl Fn(ItemContext, u64) -> Fut + Send + Sync + 'static,
) -> usize
where
    Fut: Future<Output = Result<u64, &'static str>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let task = at_once(8).limiter(limiter).build().unwrap();
    runtime.block_on(Plan::new(&task, stream::iter(items), call).run(end)).summary.successes
}

#[test]
fn rule_04_a_returned_permit_wakes_a_run_in_another_thread() {
    let limiter = Limiter::new(1);
    let end = End::of(Terminal::Await).next().unwrap();
    let (limit, seen) = (limiter.clone(), limiter.clone());
    let first = thread::spawn(move || {
        // Its one item continues until another run waits for its permit.
        let call = move |_: ItemContext, n| {
            let seen = seen.clone();
            async move {
                while !format!("{seen:?}").contains("waiting: 1") {
                    yield_now().await;
                }
                Ok(n)
            }
        };
        run_here(&limit, 0..1, end, call)
    });
    let limit = limiter.clone();
    let second = thread::spawn(move || {
        while limit.in_use() == 0 {
            thread::yield_now();
        }
        run_here(&limit, 0..5, end, |_, n| std::future::ready(Ok(n)))
    });
    assert_eq!((first.join().unwrap(), second.join().unwrap(), limiter.in_use()), (1, 5, 0));
}
