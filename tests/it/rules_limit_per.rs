//! Rule 41 for runs: the attempts at items with the same key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use async_map_task::{AsyncMapTask, FailureReason, KeyedLimiter, Limiter};
use futures::{StreamExt, stream};
use tokio::time::sleep;
use tracing::level_filters::LevelFilter;

use crate::every_end::{End, Plan, Terminal};
use crate::recorded_trace::listen;
use crate::support::{Gauge, HOUR, Log, after, at_once, failed, in_time, lenient, millis, secs};

/// The key of an item.
fn last_digit(n: u64) -> u64 {
    n % 10
}

/// Items that take this long each. The log has their starts, and the gauges count the running ones of each key.
fn plan(
    task: &AsyncMapTask,
    items: impl IntoIterator<Item = u64>,
    time: fn(u64) -> Duration,
) -> (Plan, Log<u64>, Arc<BTreeMap<u64, Gauge>>) {
    let (log, gauges) = (Log::open(), (0..10).map(|key| (key, Gauge::default())).collect::<BTreeMap<_, _>>());
    let gauges = Arc::new(gauges);
    let (notes, running) = (log.clone(), Arc::clone(&gauges));
    let call = move |_, n| {
        notes.note(n);
        let alive = running[&last_digit(n)].enter();
        async move {
            let _alive = alive;
            after(time(n), Ok(n)).await
        }
    };
    let items: Vec<u64> = items.into_iter().collect();
    (Plan::new(task, stream::iter(items), call), log, gauges)
}

fn a_second(_: u64) -> Duration {
    secs(1)
}

/// The starts of the items with this key, in their order.
fn of_key(log: &Log<u64>, key: u64) -> Vec<u64> {
    log.lines().into_iter().filter(|n| last_digit(*n) == key).collect()
}

fn check_idle(hosts: &KeyedLimiter<u64>) {
    for key in 0..10 {
        assert_eq!((hosts.in_use(&key), hosts.waiting(&key)), (0, 0), "{key}");
    }
    assert_eq!(hosts.keys(), 0);
}

#[tokio::test(start_paused = true)]
async fn rule_41_at_most_n_attempts_of_a_key_in_the_order_of_the_input() {
    for end in End::all() {
        let hosts = KeyedLimiter::new(2);
        // Ten items of each of three keys. The keys are not in turn.
        let items: Vec<u64> = (0..30).map(|n| n * 10 + n * n % 3).collect();
        let count = |key| items.iter().filter(|n| last_digit(**n) == key).count() as u64;
        let longest = (0..3).map(|key| count(key).div_ceil(2)).max().unwrap();
        let (plan, log, running) =
            plan(&at_once(16).look_ahead(100).build().unwrap(), items.clone(), a_second);
        let report = in_time(plan.run_per(end, last_digit, &hosts)).await;
        assert_eq!((report.reason, report.summary.successes), (None, 30), "{end:?}");
        assert_eq!(report.summary.elapsed, secs(longest), "{end:?}");
        for key in (0..3).filter(|key| count(*key) > 0) {
            assert_eq!(running[&key].peak(), 2, "{end:?}: {key}");
            assert!(of_key(&log, key).is_sorted(), "{end:?}: {:?}", of_key(&log, key));
        }
        check_idle(&hosts);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_41_each_host_goes_at_its_own_pace() {
    fn pace(n: u64) -> Duration {
        if last_digit(n) == 0 { secs(1) } else { millis(10) }
    }
    // 100 items of a slow host and 100 of a fast one, in turn.
    let items = || (0..200).map(|n| n * 10 + n % 2);
    for end in End::all().filter(|end| !end.ordered) {
        let hosts = KeyedLimiter::new(4);
        let (with_keys, log, _) = plan(&at_once(8).look_ahead(200).build().unwrap(), items(), pace);
        let report = in_time(with_keys.run_per(end, last_digit, &hosts)).await;
        // 100 slow items, 4 at once, take 25 s, and the fast ones 250 ms.
        assert!(report.summary.elapsed.as_millis() * 95 <= 25_000 * 100, "{end:?}");
        let fast = log.timed().into_iter().filter(|(_, n)| last_digit(*n) == 1).map(|(at, _)| at).max();
        assert!(fast.unwrap() * 95 <= 250 * 100, "{end:?}: {fast:?} ms");

        let (fifo, log, _) = plan(&at_once(8).look_ahead(200).build().unwrap(), items(), pace);
        in_time(fifo.run(end)).await;
        let fast = log.timed().into_iter().filter(|(_, n)| last_digit(*n) == 1).map(|(at, _)| at).max();
        assert!(fast.unwrap() > 10_000, "{end:?}: without keys the fast host starves, {fast:?} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_41_held_items_fill_the_window() {
    for end in End::all() {
        let (hosts, pulled) = (KeyedLimiter::new(1), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&pulled);
        let source = stream::iter((0..40).map(|n| n * 10)).inspect(move |_| _ = counted.fetch_add(1, SeqCst));
        let task = at_once(4).look_ahead(6).build().unwrap();
        let plan = Plan::new(&task, source, |_, n| after(secs(1), Ok(n)));
        let run = in_time(plan.run_per(end, last_digit, &hosts));
        let watch = async {
            sleep(millis(500)).await;
            assert_eq!(pulled.load(SeqCst), 7, "{end:?}: one runs, and six are held");
        };
        let (report, ()) = tokio::join!(run, watch);
        assert_eq!((report.summary.successes, report.summary.elapsed), (40, secs(40)), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_41_runs_share_their_keys() {
    for end in End::all() {
        let hosts = KeyedLimiter::builder().permits(1).build().unwrap();
        let task = at_once(4).build().unwrap();
        let runs = [(); 3].map(|()| plan(&task, (0..12).map(|n| n * 10 + n % 2), a_second));
        let logs = runs.each_ref().map(|(_, log, _)| log.clone());
        let ends = runs.map(|(plan, ..)| {
            let hosts = hosts.clone();
            tokio::spawn(async move { plan.run_per(end, last_digit, &hosts).await })
        });
        for run in ends {
            assert_eq!(in_time(run).await.unwrap().summary.successes, 12, "{end:?}");
        }
        // 18 items of each key, one at a time, so each second has one start of each key.
        let mut times: Vec<u64> = logs.iter().flat_map(Log::times).collect();
        times.sort_unstable();
        assert_eq!(times, (0..36).map(|n| n / 2 * 1_000).collect::<Vec<_>>(), "{end:?}");
        // The first run has a request in each queue before the others have one.
        let last = logs.map(|log| log.times().into_iter().max().unwrap());
        assert!(last.iter().max().unwrap() - last.iter().min().unwrap() <= 4_000, "{end:?}: {last:?}");
        check_idle(&hosts);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_41_a_run_that_cannot_start_keeps_no_key() {
    for end in End::all() {
        let hosts = KeyedLimiter::new(1);
        let busy = hosts.acquire(1).await.unwrap();
        // The item of key 1 waits. The long one of key 0 then takes the only permit of the run.
        let (narrow, log, _) = plan(&at_once(1).build().unwrap(), [1, 10], |n| secs(n + 10));
        let shared = hosts.clone();
        let run = tokio::spawn(async move { narrow.run_per(end, last_digit, &shared).await });
        sleep(secs(1)).await;
        drop(busy);
        sleep(secs(1)).await;
        assert_eq!((hosts.in_use(&0), hosts.in_use(&1)), (1, 0), "{end:?}");
        drop(hosts.try_acquire(1).expect("nothing runs with this key"));
        in_time(run).await.unwrap();
        assert_eq!(log.timed(), [(0, 10), (20_000, 1)], "{end:?}");
        check_idle(&hosts);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_41_a_permit_that_is_returned_was_no_start() {
    for end in End::all() {
        let hosts = KeyedLimiter::builder().rate(1, secs(10)).build().unwrap();
        drop(hosts.try_acquire(1));
        // At 10 s, the item of key 1 may start, but the other one has the only permit of the run until 15 s.
        let (narrow, log, _) = plan(&at_once(1).build().unwrap(), [1, 10], |n| secs(n + 5));
        in_time(narrow.run_per(end, last_digit, &hosts)).await;
        assert_eq!(log.timed(), [(0, 10), (15_000, 1)], "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_41_the_rate_of_a_key_counts_from_the_start_of_an_attempt() {
    for end in End::all() {
        let (hosts, slow) = (KeyedLimiter::builder().rate(1, secs(1)).build().unwrap(), Limiter::new(1));
        let held = slow.acquire().await.unwrap();
        let task = at_once(4).limiter(&slow).build().unwrap();
        let (plan, log, _) = plan(&task, [0, 10, 20], |_| millis(1));
        let shared = hosts.clone();
        let run = tokio::spawn(async move { plan.run_per(end, last_digit, &shared).await });
        sleep(millis(5_900)).await;
        drop(held);
        in_time(run).await.unwrap();
        assert_eq!(log.times(), [5_900, 6_900, 7_900], "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_41_an_item_that_waits_for_its_key_is_no_start() {
    for end in End::all() {
        let (hosts, rate) = (KeyedLimiter::new(1), Limiter::builder().rate(1, secs(1)).burst(3));
        let rate = rate.build().unwrap();
        // The worker that has run item 1 goes on with item 10, whose key is full, and with item 11.
        let task = at_once(2).limiter(&rate).build().unwrap();
        let (plan, log, _) = plan(&task, [0, 1, 10, 11], |n| if n == 0 { secs(10) } else { secs(0) });
        in_time(plan.run_per(end, last_digit, &hosts)).await;
        assert_eq!(log.timed(), [(0, 0), (0, 1), (0, 11), (10_000, 10)], "{end:?}");
        check_idle(&hosts);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_41_a_weight_counts_as_one_for_a_key() {
    for end in End::all() {
        let hosts = KeyedLimiter::new(2);
        let (plan, log, _) = plan(&at_once(10).build().unwrap(), [10, 20, 30, 40], a_second);
        let report = in_time(plan.weight(|_| 5).run_per(end, last_digit, &hosts)).await;
        assert_eq!((report.summary.successes, log.times()), (4, vec![0, 0, 1_000, 1_000]), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_41_a_rate_is_for_each_key() {
    for end in End::all() {
        let hosts = KeyedLimiter::builder().rate(2, secs(1)).build().unwrap();
        let (plan, log, _) =
            plan(&at_once(10).build().unwrap(), (0..12).map(|n| n * 10 + n % 3), |_| millis(1));
        in_time(plan.run_per(end, last_digit, &hosts)).await;
        for key in 0..3 {
            let times = log.timed().into_iter().filter(|(_, n)| last_digit(*n) == key).map(|(at, _)| at);
            assert_eq!(times.collect::<Vec<_>>(), [0, 500, 1_000, 1_500], "{end:?}: {key}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_41_retries_come_first_within_their_key() {
    for end in End::all() {
        let (hosts, log) = (KeyedLimiter::new(1), Log::open());
        let task = lenient().concurrency(4).retries(1).retry_delay(millis(500)).build().unwrap();
        let notes = log.clone();
        let plan = Plan::new(&task, stream::iter([10, 20, 30, 40]), move |cx, n| {
            notes.note((n, cx.attempt()));
            after(secs(1), if (n, cx.attempt()) == (10, 1) { Err("again") } else { Ok(n) })
        });
        let report = in_time(plan.run_per(end, last_digit, &hosts)).await;
        assert_eq!((report.summary.successes, report.summary.retries), (4, 1), "{end:?}");
        let expected = [(10, 1), (20, 1), (10, 2), (30, 1), (40, 1)];
        assert_eq!(log.lines(), expected, "{end:?}");
        assert_eq!(log.times(), [0, 1_000, 2_000, 3_000, 4_000], "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_41_an_item_gives_up_its_retry_at_its_time_limit() {
    for end in End::all() {
        let hosts = KeyedLimiter::new(1);
        let task = lenient().concurrency(4).retries(1).retry_delay(millis(10)).timeout_per_item(secs(3));
        let shared = hosts.clone();
        let plan = Plan::new(&task.build().unwrap(), stream::iter([10]), move |_, _| {
            // Somebody else takes the key while the item waits for its retry.
            let shared = shared.clone();
            async move {
                tokio::spawn(async move {
                    let _permit = shared.acquire(0).await.unwrap();
                    sleep(HOUR).await;
                });
                tokio::task::yield_now().await;
                Err("busy")
            }
        });
        let report = in_time(plan.run_per(end, last_digit, &hosts)).await;
        assert_eq!(report.outcomes, [(0, Err(failed("busy", 1)))], "{end:?}");
        assert_eq!(report.summary.elapsed, secs(3), "{end:?}");
        assert_eq!(hosts.waiting(&0), 0, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_41_no_item_waits_for_a_retry_that_its_key_lets_start_too_late() {
    for end in End::all() {
        let hosts = KeyedLimiter::builder().rate(1, secs(60)).build().unwrap();
        let task = lenient().concurrency(4).retries(1).retry_delay(millis(10)).timeout_per_item(secs(30));
        let plan = Plan::new(&task.build().unwrap(), stream::iter([10]), |_, _| async { Err("busy") });
        let report = in_time(plan.run_per(end, last_digit, &hosts)).await;
        assert_eq!(report.outcomes, [(0, Err(failed("busy", 1)))], "{end:?}");
        assert_eq!(report.summary.elapsed, Duration::ZERO, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_41_items_of_new_keys_wait_until_a_key_is_idle() {
    for end in End::all() {
        let hosts = KeyedLimiter::builder().permits(1).max_keys(2).build().unwrap();
        // Key 0 goes on, while keys 2 to 5 have to wait for key 1.
        let items = [0, 1, 2, 3, 4, 5, 10, 20, 30].map(|n| n as u64);
        let (plan, log, _) = plan(&at_once(9).build().unwrap(), items, a_second);
        let report = in_time(plan.run_per(end, last_digit, &hosts)).await;
        assert_eq!(report.summary.successes, 9, "{end:?}");
        assert_eq!(of_key(&log, 0), [0, 10, 20, 30], "{end:?}");
        let others: Vec<_> = log.timed().into_iter().filter(|(_, n)| last_digit(*n) > 0).collect();
        let expected = [(0, 1), (1_000, 2), (2_000, 3), (3_000, 4)];
        assert_eq!(others[..4], expected, "{end:?}: {others:?}");
        check_idle(&hosts);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_41_a_run_that_ends_leaves_no_key_behind() {
    for end in End::all() {
        let hosts = KeyedLimiter::new(1);
        let busy = hosts.acquire(1).await.unwrap();
        let task = |limit| at_once(2).run_timeout(limit).build().unwrap();
        let (plan_in_time, log, _) = plan(&task(secs(5)), [1, 11, 0, 10, 2], |_| secs(2));
        let report = in_time(plan_in_time.run_per(end, last_digit, &hosts)).await;
        assert_eq!((report.summary.successes, report.summary.not_started), (3, 2), "{end:?}");
        assert_eq!(log.lines(), [0, 2, 10], "{end:?}");
        assert_eq!((hosts.in_use(&1), hosts.waiting(&1)), (1, 0), "{end:?}");
        if end.terminal == Terminal::Spawn {
            continue; // A handle that is dropped detaches its run.
        }
        let (dropped, ..) = plan(&task(HOUR), [1, 11, 0], |_| secs(2));
        let shared = hosts.clone();
        let run = tokio::spawn(async move { dropped.run_per(end, last_digit, &shared).await });
        sleep(secs(1)).await;
        assert_eq!((hosts.in_use(&0), hosts.waiting(&1)), (1, 1), "{end:?}: one request, for two items");
        run.abort();
        assert!(run.await.unwrap_err().is_cancelled());
        sleep(millis(1)).await;
        assert_eq!((hosts.in_use(&0), hosts.waiting(&1)), (0, 0), "{end:?}");
        drop(busy);
        check_idle(&hosts);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_41_a_pause_returns_the_keys_and_keeps_the_order() {
    for parallel in [false, true] {
        let (hosts, log) = (KeyedLimiter::new(1), Log::open());
        let busy = hosts.acquire(0).await.unwrap();
        let task = at_once(3).build().unwrap();
        let notes = log.clone();
        let run = task
            .over([0_u64, 10, 1, 20])
            .map(move |n| {
                notes.note(n);
                after(secs(1), Ok::<_, String>(n))
            })
            .limit_per(|n| last_digit(*n), &hosts);
        let handle = if parallel { run.parallel().spawn() } else { run.spawn() };
        sleep(millis(100)).await;
        assert_eq!((hosts.waiting(&0), log.lines()), (1, vec![1]));
        handle.pause();
        sleep(millis(100)).await;
        assert_eq!(hosts.waiting(&0), 0, "a paused run leaves the queue");
        drop(busy);
        sleep(HOUR).await;
        assert_eq!((hosts.in_use(&0), log.lines()), (0, vec![1]));
        handle.resume();
        assert_eq!(in_time(handle).await.unwrap().successes(), 4);
        assert_eq!(log.lines(), [1, 0, 10, 20]);
        check_idle(&hosts);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_41_an_attempt_takes_two_keys_at_once() {
    let (hosts, accounts) = (KeyedLimiter::new(1), KeyedLimiter::new(1));
    for parallel in [false, true] {
        let log = Log::open();
        let notes = log.clone();
        let run = at_once(9)
            .build()
            .unwrap()
            // The host, and the account.
            .over([(0_u64, 'a'), (0, 'b'), (1, 'a'), (1, 'b'), (2, 'c')])
            .map(move |item| {
                notes.note(item);
                after(secs(1), Ok::<_, String>(()))
            })
            .limit_per(|(host, _)| *host, &hosts)
            .limit_per(|(_, account)| *account, &accounts);
        let result = if parallel { in_time(run.parallel()).await } else { in_time(run).await };
        assert_eq!(result.unwrap().successes(), 5);
        let at = |second: u64| {
            log.timed().into_iter().filter(move |(at, _)| *at == second * 1_000).map(|(_, item)| item)
        };
        assert_eq!(at(0).collect::<Vec<_>>(), [(0, 'a'), (1, 'b'), (2, 'c')], "{parallel}");
        let mut second: Vec<_> = at(1).collect();
        second.sort_unstable();
        assert_eq!(second, [(0, 'b'), (1, 'a')], "{parallel}");
        check_idle(&hosts);
        assert_eq!(accounts.keys(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_39_a_refusal_holds_the_key_of_its_item() {
    for parallel in [false, true] {
        let (hosts, log) = (KeyedLimiter::new(4), Log::open());
        let (memory, guard) = listen(LevelFilter::INFO);
        let notes = log.clone();
        let run = lenient()
            .concurrency(1)
            .build()
            .unwrap()
            .over([0_u64, 10, 1, 20])
            .map(move |n| {
                notes.note(n);
                async move { if n == 0 { Err("busy") } else { Ok(()) } }
            })
            .limit_per(|n| last_digit(*n), &hosts)
            .hold_back(|_| Some(secs(30)));
        let result = if parallel { in_time(run.parallel()).await } else { in_time(run).await };
        assert_eq!(result.unwrap().successes(), 3);
        let [first, other, rest @ ..] = &log.timed()[..] else { panic!("{:?}", log.timed()) };
        assert_eq!((first, other), (&(0, 0), &(0, 1)), "{parallel}: the other key goes on");
        assert!(matches!(rest, [(30_000, 10), (30_000.., 20)]), "{parallel}: {rest:?}");
        drop(guard);
        let holds = memory.events("an error holds back the items of its key");
        assert_eq!(holds.len(), 1, "{parallel}");
        assert_eq!(holds[0].fields.get("hold"), Some("30s"));
        assert!(memory.events("an error holds back all items").is_empty());
    }
}

#[tokio::test]
async fn rule_41_a_function_that_still_runs_keeps_its_key() {
    let (hosts, running) = (KeyedLimiter::new(1), Gauge::default());
    let (open, opened) = std::sync::mpsc::channel::<()>();
    let (gauge, opened) = (running.clone(), std::sync::Mutex::new(opened));
    let run = lenient()
        .concurrency(4)
        .timeout_per_attempt(millis(20))
        .build()
        .unwrap()
        .over([0_u64, 10])
        .map_blocking(move |n| {
            let _alive = gauge.enter();
            opened.lock().unwrap().recv().unwrap();
            Ok::<_, String>(n)
        })
        .limit_per(|n| last_digit(*n), &hosts)
        .spawn();
    while running.now() == 0 {
        sleep(millis(1)).await;
    }
    sleep(millis(60)).await;
    assert_eq!((running.ever(), hosts.in_use(&0)), (1, 1), "the first has timed out and still runs");
    open.send(()).unwrap();
    open.send(()).unwrap();
    let result = in_time(run).await.unwrap();
    assert_eq!((result.summary.timeouts >= 1, running.peak()), (true, 1));
    check_idle(&hosts);
}

#[tokio::test(start_paused = true)]
async fn rule_41_a_keyed_limiter_without_permits_is_an_error() {
    for end in End::all() {
        let hosts = KeyedLimiter::new(0);
        let (plan, ..) = plan(&at_once(4).build().unwrap(), [0, 1], a_second);
        let report = in_time(plan.run_per(end, last_digit, &hosts)).await;
        let reason = report.reason.expect("nothing can start");
        assert!(reason.contains("KeyedLimiter::new(0)"), "{reason}: {end:?}");
        assert_eq!(report.summary.not_started, 2, "{end:?}");
    }
    let task = at_once(4).build().unwrap();
    let run = task.over([0_u64]).map(|n| async move { Ok::<_, String>(n) });
    let error = run.limit_per(|n| *n, &KeyedLimiter::new(0)).await.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::Config(_)), "{error}");
}
