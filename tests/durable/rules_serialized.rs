//! Rule 6 of durable runs: for one key at most one item computes at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_map_task::Cache;
use async_map_task::store::MemoryStore;
use futures::FutureExt;
use futures::future::join_all;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::rigged::{Call, Rigged, Step};
use crate::support::{
    Calls, End, HOUR, NEVER, Plan, Terminal, at_once, in_another_process, in_time, lenient, millis, secs,
    thrice, workers,
};
use crate::warnings::Warnings;

/// The longest delay before the store is checked again for another process.
const PATIENCE: Duration = Duration::from_millis(200);

fn serialized() -> Cache {
    Cache::version("1").serialized()
}

/// Each number takes this many seconds.
fn taking(seconds: u64, store: &Rigged, calls: &Calls, concurrency: usize) -> Plan {
    let calls = calls.clone();
    let task = lenient(concurrency).build().unwrap();
    let call = move |_, n| {
        calls.note(n);
        async move { sleep(secs(seconds)).map(|()| Ok(n)).await }
    };
    Plan::new(&task, store, call).cache(serialized())
}

#[tokio::test(start_paused = true)]
async fn durable_rule_6_equal_items_of_a_run_compute_once() {
    for end in End::all() {
        for concurrency in [1, 2, 3, 8, 64] {
            for seconds in [0, 1] {
                let (store, calls) = (Rigged::willing(), Calls::default());
                let items = (0..60).map(|n| n % 3);
                let report = taking(seconds, &store, &calls, concurrency).run(items, end).await;
                let mut called = calls.take();
                called.sort_unstable();
                assert_eq!(called, [0, 1, 2], "{end:?}, {concurrency}");
                assert_eq!((report.summary.successes, report.summary.cached), (60, 57), "{end:?}");
                let longest = secs(seconds * if concurrency < 3 { 3 } else { 1 });
                assert!(report.summary.elapsed <= longest, "{end:?}: {}", report.summary);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn durable_rule_6_concurrent_runs_compute_each_key_once() {
    for end in End::all() {
        let (memory, calls) = (MemoryStore::new(), Calls::default());
        let runs = (0..4).map(|shift| {
            // Each begins at another item, so each holds claims that others wait for.
            let items = (0..40).map(move |n| (n + 10 * shift) % 40);
            let store = Rigged::over(&memory, |_| Step::Go);
            tokio::spawn(taking(1, &store, &calls, 3).run(items, end))
        });
        let reports = join_all(runs).await;
        let mut called = calls.take();
        called.sort_unstable();
        assert_eq!(called, (0..40).collect::<Vec<_>>(), "{end:?}: each once");
        let mut cached = 0;
        for report in reports {
            let report = report.unwrap();
            assert_eq!(report.summary.successes, 40, "{end:?}");
            cached += report.summary.cached;
        }
        assert_eq!(cached, 120, "{end:?}");
    }
}

/// With one permit, and all keys but the last held by others: the last one starts immediately.
#[tokio::test(start_paused = true)]
async fn durable_rule_6_a_waiting_item_holds_no_permit() {
    // In the order of the input, an ended item waits for those before it, and its permit with it.
    for end in End::all().filter(|end| !end.ordered) {
        for concurrency in [1, 4] {
            let (store, calls) = (Rigged::willing(), Calls::default());
            let others = tokio::spawn(taking(100, &store, &Calls::default(), 64).run(0..20, end));
            sleep(secs(1)).await;
            let run = tokio::spawn(taking(1, &store, &calls, concurrency).run(0..22, end));
            sleep(millis(100)).await;
            assert!(calls.take().starts_with(&[20]), "{end:?}");
            sleep(secs(3)).await;
            calls.take();
            let report = run.await.unwrap();
            assert_eq!((calls.take(), report.summary.cached), (Vec::new(), 20), "{end:?}");
            others.await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn durable_rule_6_a_failed_holder_releases_its_claim() {
    for end in End::all() {
        for how in ["error", "panic", "timeout", "cancel", "drop"] {
            let store = Rigged::willing();
            let token = CancellationToken::new();
            let task = lenient(1).timeout_per_item(secs(60)).build().unwrap();
            let holder = Plan::new(&task, &store, move |_, n| async move {
                sleep(secs(10)).await;
                match how {
                    "error" => Err("no"),
                    "panic" => panic!("worse"),
                    _ => sleep(HOUR).map(|()| Ok(n)).await,
                }
            });
            let holder = tokio::spawn(holder.cache(serialized()).token(&token).run([7], end));
            sleep(secs(1)).await;
            let calls = Calls::default();
            let run = tokio::spawn(taking(1, &store, &calls, 1).run([7], end));
            if how == "drop" && end.terminal == Terminal::Spawn {
                // It continues without its handle.
                run.abort();
                continue;
            }
            sleep(secs(8)).await;
            assert_eq!(calls.take(), Vec::<u64>::new(), "{end:?}, {how}");
            let freed = match how {
                "timeout" => secs(51),
                "cancel" | "drop" => secs(2),
                _ => secs(1),
            };
            sleep(freed - millis(1)).await;
            match how {
                "cancel" => token.cancel(),
                "drop" => holder.abort(),
                _ => {}
            }
            sleep(PATIENCE + millis(2)).await;
            assert_eq!(calls.take(), [7], "{end:?}, {how}: it is released at once");
            assert_eq!(run.await.unwrap().summary.successes, 1, "{end:?}, {how}");
        }
    }
}

/// Within one run, the store is not even checked again: no time passes.
#[tokio::test(start_paused = true)]
async fn durable_rule_6_an_equal_item_of_the_run_is_next_immediately() {
    for end in End::all() {
        let calls = Calls::default();
        let noted = calls.clone();
        let call = move |cx: async_map_task::ItemContext, n| {
            noted.note(cx.index() as u64);
            async move {
                sleep(secs(10)).await;
                if cx.index() == 0 { Err("no") } else { Ok(n) }
            }
        };
        let plan = Plan::new(&lenient(3).build().unwrap(), &Rigged::willing(), call).cache(serialized());
        let report = plan.run([7; 5], end).await;
        assert_eq!((report.summary.failures, report.summary.successes, report.summary.cached), (1, 4, 3));
        assert_eq!((calls.take().len(), report.summary.elapsed), (2, secs(20)), "{end:?}");
    }
}

/// A process that dies releases nothing. Here it is a runtime that is shut down while it computes; of the waiting
/// runs, exactly one computes.
#[tokio::test(start_paused = true)]
async fn durable_rule_6_a_dead_holder_loses_its_claim_with_its_lease() {
    let store = Rigged::willing();
    let process = workers(1);
    let end = End::all().next().unwrap();
    let (held, begun_there) = (store.clone(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&begun_there);
    process.spawn(async move {
        let call = move |_, _| {
            count.fetch_add(1, SeqCst);
            std::future::pending()
        };
        let task = at_once(1).build().unwrap();
        Plan::new(&task, &held, call).cache(serialized().lease(secs(20))).run([7], end).await
    });
    in_another_process(|| begun_there.load(SeqCst) == 1);
    process.shutdown_background();

    let (begun, calls) = (Instant::now(), Calls::default());
    let runs = (0..4).map(|_| tokio::spawn(taking(1, &store, &calls, 1).run([7], end)));
    let reports = join_all(runs).await;
    assert_eq!(calls.take(), [7], "exactly one takes over");
    let cached: usize = reports.into_iter().map(|report| report.unwrap().summary.cached).sum();
    assert_eq!(cached, 3);
    let elapsed = begun.elapsed();
    assert!((secs(19)..=secs(22)).contains(&elapsed), "after the lease of 20 s and 1 s of work: {elapsed:?}");
}

/// A computation of many leases keeps its claim: while it runs, and while it waits for its retry.
#[tokio::test(start_paused = true)]
async fn durable_rule_6_a_claim_is_renewed_while_its_item_runs() {
    for end in End::all() {
        let (store, calls) = (Rigged::willing(), Calls::default());
        let task = at_once(1).retries(1).retry_delay(secs(60)).retry_jitter(0.0).build().unwrap();
        let holder = Plan::new(&task, &store, |cx, n| async move {
            sleep(secs(500)).await;
            if cx.attempt() == 1 { Err("again") } else { Ok(n) }
        });
        let short = || serialized().lease(secs(1));
        let holder = tokio::spawn(holder.cache(short()).run([7], end));
        sleep(millis(1)).await;
        let task = at_once(1).build().unwrap();
        let waiting = thrice(&task, &store, &calls, NEVER).cache(short()).run([7], end).await;
        assert_eq!((calls.take(), waiting.summary.cached), (Vec::new(), 1), "{end:?}");
        assert_eq!(waiting.outputs, [(0, 7)], "{end:?}");
        let elapsed = waiting.summary.elapsed;
        assert!((secs(1_059)..=secs(1_060) + PATIENCE).contains(&elapsed), "{end:?}: {elapsed:?}");
        assert_eq!(holder.await.unwrap().summary.successes, 1);
    }
}

/// A failed renewal is repeated. An item that has lost its claim computes to its end, with a warning.
#[tokio::test(start_paused = true)]
async fn durable_rule_6_a_lost_claim_fails_no_item() {
    let (warnings, _listening) = Warnings::listen();
    let (store, calls) = (Rigged::on(Call::RenewClaim, Step::Fail), Calls::default());
    let end = End::all().next().unwrap();
    let other = Rigged::over(&store.memory, |_| Step::Go);
    let holder = tokio::spawn(taking(100, &store, &calls, 1).run([7], end));
    sleep(secs(1)).await;
    let taken = taking(1, &other, &calls, 1).run([7], end).await;
    assert_eq!((calls.take(), taken.summary.cached), (vec![7, 7], 0), "it has computed it, too");
    assert_eq!(holder.await.unwrap().summary.successes, 1);
    assert!(warnings.count("failed to renew the claim") >= 3);
}

/// If an output cannot be written, the next item computes it immediately, as if the first had failed.
#[tokio::test(start_paused = true)]
async fn durable_rule_6_a_failed_write_delays_no_other_item() {
    for end in End::all() {
        let (store, calls) = (Rigged::on(Call::PutCached, Step::Fail), Calls::default());
        let report = taking(1, &store, &calls, 2).run([7; 3], end).await;
        assert_eq!((calls.take(), report.summary.successes), (vec![7; 3], 3), "{end:?}");
        assert_eq!(report.summary.elapsed, secs(3), "{end:?}");
        // Items that wait in other runs are not delayed either.
        let begun = Instant::now();
        taking(1, &store, &calls, 1).run([7], end).await;
        assert!(begun.elapsed() <= secs(1) + PATIENCE, "{end:?}: {:?}", begun.elapsed());
        calls.take();
    }
}

/// The store grants a claim, and the run ends before it has the answer.
#[tokio::test(start_paused = true)]
async fn durable_rule_6_an_ended_run_releases_a_late_claim() {
    for end in End::all() {
        for is_dropped in [false, true] {
            if is_dropped && end.terminal == Terminal::Spawn {
                continue;
            }
            let latch = Arc::new(Semaphore::new(0));
            let store = Rigged::on(Call::Claim, Step::Answer(Arc::clone(&latch)));
            let (token, calls) = (CancellationToken::new(), Calls::default());
            let plan = taking(1, &store, &calls, 1).token(&token);
            if is_dropped {
                assert!(timeout(secs(1), plan.run([7], end)).await.is_err());
                latch.add_permits(9);
            } else {
                let stop = async {
                    sleep(secs(1)).await;
                    token.cancel();
                    sleep(millis(1)).await;
                    latch.add_permits(9);
                };
                let (report, ()) = tokio::join!(plan.run([7], end), stop);
                assert_eq!(report.summary.not_started, 1, "{end:?}");
            }
            sleep(millis(1)).await;
            let begun = Instant::now();
            let next = Rigged::over(&store.memory, |_| Step::Go);
            taking(1, &next, &calls, 1).run([7], end).await;
            assert!(begun.elapsed() <= secs(1) + PATIENCE, "{end:?}, {is_dropped}: {:?}", begun.elapsed());
            assert_eq!(calls.take(), [7]);
        }
    }
}

/// Weights and a shared limit: the item with the claim gets its permits, regardless of what the others wait for.
#[tokio::test(start_paused = true)]
async fn durable_rule_6_weights_and_a_shared_limit_do_not_deadlock() {
    let limiter = async_map_task::Limiter::new(5);
    for concurrency in [4, 7] {
        for is_parallel in [false, true] {
            let (store, calls) = (MemoryStore::new(), AtomicUsize::new(0));
            let calls = Arc::new(calls);
            let task = at_once(concurrency).limiter(&limiter).build().unwrap();
            let run = || {
                let count = Arc::clone(&calls);
                let run = task.over((0..200_u64).map(|n| n % 30)).map(move |n| {
                    count.fetch_add(1, SeqCst);
                    async move { Ok::<_, String>(sleep(millis(n)).map(|()| n).await) }
                });
                run.weight(|n| 1 + (*n % 4) as u32).cache(&store, serialized())
            };
            let both = async {
                if is_parallel {
                    tokio::join!(run().parallel(), run().parallel())
                } else {
                    tokio::join!(run(), run())
                }
            };
            let (one, other) = in_time(both).await;
            assert_eq!(one.unwrap().summary.cached + other.unwrap().summary.cached, 370);
            assert_eq!((calls.load(SeqCst), limiter.in_use()), (30, 0));
        }
    }
}

/// The claims themselves, as recorded by the store: never two holders of one key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn durable_rule_6_on_many_threads_each_key_is_computed_once() {
    let store = MemoryStore::new();
    let counts: Arc<Vec<AtomicUsize>> = Arc::new((0..300).map(|_| AtomicUsize::new(0)).collect());
    let runs = (0..3_usize).map(|shift| {
        let (store, counts) = (store.clone(), Arc::clone(&counts));
        tokio::spawn(async move {
            let task = at_once(8).build().unwrap();
            let run = task.over((0..600).map(move |n| (n + 100 * shift) % 300)).map(move |n| {
                counts[n].fetch_add(1, SeqCst);
                async move {
                    tokio::task::yield_now().await;
                    Ok::<_, String>(n)
                }
            });
            timeout(secs(60), run.cache(&store, serialized()).parallel())
                .await
                .expect("it hangs")
                .unwrap()
                .successes()
        })
    });
    for successes in join_all(runs).await {
        assert_eq!(successes.unwrap(), 600);
    }
    assert!(counts.iter().all(|count| count.load(SeqCst) == 1));
}
