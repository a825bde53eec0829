//! Rules 5 and 7 of durable runs: the key of a cached output, its replacement, and that the cache never fails an
//! item.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::SystemTime;

use async_map_task::store::{CacheKey, Checksummed, MemoryStore, Store};
use async_map_task::{AsyncMapTask, Cache, Limiter, Origin};
use futures::FutureExt;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::rigged::{Call, Rigged, Step};
use crate::support::{
    Calls, End, HOUR, NEVER, Plan, Terminal, at_once, in_time, lenient, millis, secs, thrice,
};
use crate::warnings::Warnings;

fn v1() -> Cache {
    Cache::version("1")
}

#[tokio::test(start_paused = true)]
async fn durable_rule_5_other_settings_and_runs_find_cached_outputs() {
    for end in End::all() {
        for cache in [v1(), v1().serialized()] {
            let (store, calls) = (Rigged::willing(), Calls::default());
            let plan = |task: &AsyncMapTask| thrice(task, &store, &calls, NEVER).cache(cache.clone());
            plan(&lenient(4).build().unwrap()).run(0..20, end).await;
            assert_eq!(calls.take().len(), 20);
            let builders = [
                lenient(64),
                at_once(1).retries(5).timeout_per_item(secs(1)).cancel_grace(secs(1)),
                at_once(3).max_failures(7).fail_fast(true).run_timeout(HOUR).limiter(&Limiter::new(1)),
            ];
            for builder in builders {
                let task = builder.build().unwrap();
                let report = plan(&task).run((0..20).rev(), end).await;
                let outputs: Vec<_> = (0..20).map(|index| (index, 3 * (19 - index as u64))).collect();
                assert_eq!((calls.take(), report.outputs), (Vec::new(), outputs), "{end:?}: {task:?}");
                assert_eq!((report.summary.cached, report.summary.recovered), (20, 0), "{end:?}");
                assert!(report.origins.iter().all(|(_, origin)| *origin == Origin::Cached), "{end:?}");
            }
            let mixed = plan(&lenient(4).build().unwrap()).run([99, 3, 98, 4], end).await;
            assert_eq!((calls.take(), mixed.summary.cached), (vec![99, 98], 2), "{end:?}");
            for (index, origin) in mixed.origins {
                let expected = if index % 2 == 0 { Origin::Ran } else { Origin::Cached };
                assert_eq!(origin, expected, "{end:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn durable_rule_5_the_key_is_task_version_and_item() {
    let store = MemoryStore::new();
    let cached = async |task: &str, version: &str, item: &str| {
        let task = AsyncMapTask::builder().name(task.to_owned()).build().unwrap();
        let run = task.over([item.to_owned()]).map(|text| async move { Ok::<_, String>(text.len()) });
        let result = run.cache(&store, Cache::version(version)).await.unwrap();
        assert_eq!(result.results, [Some(item.len())]);
        result.summary.cached == 1
    };
    assert!(!cached("embed", "3", "a text").await);
    assert!(cached("embed", "3", "a text").await);
    assert!(!cached("embed", "3", "a Text").await);
    assert!(!cached("embed", "4", "a text").await);
    assert!(!cached("summarize", "3", "a text").await);
    // Text that moves from one part into the next changes the key.
    assert!(!cached("embed3", "", "a text").await);
    assert!(!cached("embed", "", "3a text").await);
    assert!(cached("embed", "3", "a text").await, "and that of the others has replaced nothing");
    assert_eq!(store.evict("embed", Some("4")).await.unwrap(), 1);
    assert!(!cached("embed", "4", "a text").await);
    assert!(cached("embed", "3", "a text").await);
}

#[tokio::test(start_paused = true)]
async fn durable_rule_5_key_by_selects_the_parts_of_the_key() {
    #[derive(Clone)]
    struct Request {
        text: &'static str,
        trace: u64,
    }
    let (store, calls) = (MemoryStore::new(), AtomicUsize::new(0));
    let task = at_once(1).build().unwrap();
    let requests = [("a", 1), ("b", 2), ("a", 3)].map(|(text, trace)| Request { text, trace });
    for expected in [2, 0] {
        let run = task.over(requests.clone()).map(|request| {
            calls.fetch_add(1, SeqCst);
            async move { Ok::<_, String>((request.text.to_owned(), request.trace)) }
        });
        let result = run.cache(&store, v1().key_by(|request: &Request| request.text)).await.unwrap();
        let (a, b) = (Some(("a".to_owned(), 1)), Some(("b".to_owned(), 2)));
        assert_eq!((result.results, calls.swap(0, SeqCst)), (vec![a.clone(), b, a], expected));
    }
}

#[tokio::test(start_paused = true)]
async fn durable_rule_5_only_successes_are_cached() {
    for end in End::all() {
        for cache in [v1(), v1().serialized()] {
            let (store, calls) = (Rigged::willing(), Calls::default());
            let noted = calls.clone();
            let task = lenient(3).timeout_per_attempt(secs(5)).build().unwrap();
            let plan = Plan::new(&task, &store, move |_, n| {
                noted.note(n);
                async move {
                    match n {
                        0 => Err("no"),
                        1 => panic!("worse"),
                        2 => sleep(secs(9)).map(|()| Ok(n)).await,
                        _ => Ok(n),
                    }
                }
            });
            for expected in [4, 3, 3] {
                let report = plan.clone().cache(cache.clone()).run(0..4, end).await;
                assert_eq!((calls.take().len(), report.summary.failures), (expected, 3), "{end:?}");
            }
            assert_eq!(store.count(Call::PutCached), 1, "{end:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn durable_rule_5_the_success_of_a_retry_is_cached() {
    for end in End::all() {
        let (store, calls) = (Rigged::willing(), Calls::default());
        let noted = calls.clone();
        let task = at_once(2).retries(2).build().unwrap();
        let plan = Plan::new(&task, &store, move |cx, n| {
            noted.note(n);
            async move { if cx.attempt() < 3 { Err("again") } else { Ok(n) } }
        });
        for (called, cached) in [(6, 0), (0, 2)] {
            let report = plan.clone().cache(v1().serialized()).run(0..2, end).await;
            assert_eq!((calls.take().len(), report.summary.cached), (called, cached), "{end:?}");
            assert_eq!((report.summary.successes, report.reason), (2, None), "{end:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn durable_rule_5_a_failing_store_only_causes_warnings() {
    let (warnings, _listening) = Warnings::listen();
    for end in End::all() {
        for (call, cache, what, computed) in [
            (Call::Cached, v1(), "failed to read the cache", 5),
            (Call::Claim, v1().serialized(), "failed to read the cache", 5),
            (Call::PutCached, v1(), "failed to cache the output", 5),
            (Call::PutCached, v1().overwrite(), "failed to cache the output", 5),
        ] {
            let (store, calls) = (Rigged::willing(), Calls::default());
            let task = at_once(2).build().unwrap();
            let plan = thrice(&task, &store, &calls, NEVER).cache(cache);
            store.rig(move |asked| if asked == call { Step::Fail } else { Step::Go });
            let report = plan.clone().run(0..5, end).await;
            assert_eq!((report.reason, report.summary.successes, report.summary.cached), (None, 5, 0));
            assert_eq!(calls.take().len(), computed, "{end:?}");
            assert_eq!(warnings.count(what), 5, "{end:?}, {call:?}: one for each item");
            assert!(report.outputs.iter().map(|(_, output)| *output).eq((0..5).map(|n| 3 * n)), "{end:?}");
            // The cache works again once the store does.
            store.rig(|_| Step::Go);
            plan.clone().run(0..5, end).await;
            calls.take();
            assert_eq!((warnings.count("nothing"), plan.run(0..5, end).await.summary.successes), (0, 5));
        }
    }
}

/// A value that is damaged, that is of another key, that is not JSON or of another type is a miss, and is replaced.
#[tokio::test(start_paused = true)]
async fn durable_rule_5_an_unreadable_value_is_a_miss() {
    let (warnings, _listening) = Warnings::listen();
    for cache in [v1(), v1().serialized()] {
        for damage in ["value", "checksum", "type"] {
            let store = Rigged::willing();
            let task = at_once(1).build().unwrap();
            let run = || {
                let run = task.over([7_u64]).map(|n| async move { Ok::<_, String>(3 * n) });
                run.cache(&store, cache.clone())
            };
            let key = CacheKey {
                task: "test".to_owned(),
                version: "1".to_owned(),
                // The format, and the SHA-256 of the bytes `+`, 1, 7.
                item_hash: "2-49cbfd83f1bf713f80d2d397dac98d4b3cf7d7ce1fea05dfdd912693f2290a22".to_owned(),
            };
            if damage == "type" {
                let text = task.over([7_u64]).map(|_| async { Ok::<_, String>("a text".to_owned()) });
                text.cache(&store, v1()).await.unwrap();
            } else {
                run().await.unwrap();
                let Checksummed { json, checksum } =
                    store.cached(&key).await.unwrap().expect("it is found by this key");
                let damaged = match damage {
                    "value" => Checksummed { json: "22".to_owned(), checksum },
                    _ => Checksummed { json, checksum: checksum.chars().rev().collect() },
                };
                store.put_cached(&key, &damaged, None).await.unwrap();
            }
            assert_eq!(warnings.count("nothing"), 0);
            for (cached, warned) in [(0, 1), (1, 0)] {
                let result = in_time(run()).await.unwrap();
                assert_eq!(result.results, [Some(21)], "{damage}");
                assert_eq!(
                    (result.summary.cached, warnings.count("will be computed again")),
                    (cached, warned),
                    "{damage}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn durable_rule_5_values_that_are_not_json_are_not_cached() {
    let (warnings, _listening) = Warnings::listen();
    let store = Rigged::willing();
    let task = at_once(2).build().unwrap();
    let keys_are_lists = |n: usize| BTreeMap::from([(vec![n], n)]);
    for cache in [v1(), v1().serialized()] {
        // Before 1970: serde refuses to serialize such a `SystemTime`.
        let early = |n: u64| SystemTime::UNIX_EPOCH - secs(1 + n);
        let run = task.over((0..3).map(early)).map(|_| async { Ok::<_, String>(0) });
        assert_eq!(in_time(run.cache(&store, cache.clone())).await.unwrap().successes(), 3);
        assert_eq!(warnings.count("is not cached"), 3);
        // With `serialized`, the next of equal items computes immediately.
        let run = task.over([1, 1, 1]).map(|n| async move { Ok::<_, String>(keys_are_lists(n)) });
        let result = in_time(run.cache(&store, cache)).await.unwrap();
        assert_eq!((result.successes(), warnings.count("is not cached")), (3, 3));
        assert!(result.summary.elapsed < secs(1), "{}", result.summary);
    }
    assert_eq!(store.count(Call::PutCached), 0);
}

#[tokio::test(start_paused = true)]
async fn durable_rule_5_an_output_expires_after_its_time() {
    for end in End::all() {
        let (store, calls) = (Rigged::willing(), Calls::default());
        let task = at_once(2).build().unwrap();
        let plan = thrice(&task, &store, &calls, NEVER).cache(v1().expires_after(secs(60)));
        for (wait, computed) in [(0, 3), (59, 0), (2, 3), (59, 0)] {
            sleep(secs(wait)).await;
            plan.clone().run(0..3, end).await;
            assert_eq!(calls.take().len(), computed, "{end:?}");
        }
        thrice(&task, &store, &calls, NEVER).cache(v1().overwrite()).run(0..3, end).await;
        calls.take();
        sleep(1_000 * HOUR).await;
        plan.run(0..3, end).await;
        assert_eq!(calls.take(), Vec::<u64>::new(), "{end:?}: it is kept as whoever kept it has said");
    }
}

/// A recovered item is not looked up; a cached output is durable before it counts.
#[tokio::test(start_paused = true)]
async fn durable_rule_5_a_run_can_be_recovered_and_cached() {
    for end in End::all() {
        let (store, calls) = (Rigged::willing(), Calls::default());
        let task = lenient(3).build().unwrap();
        thrice(&task, &store, &calls, NEVER).cache(v1()).run([3, 6, 9], end).await;
        let first = thrice(&task, &store, &calls, 5).recover("r").cache(v1()).run(1..11, end).await;
        assert_eq!((first.summary.cached, first.summary.recovered, first.summary.failures), (3, 0, 2));
        assert_eq!(store.durable().len(), 8, "{end:?}");
        calls.take();
        let looked_up = store.count(Call::Cached);
        let second = thrice(&task, &store, &calls, NEVER).recover("r").cache(v1()).run(1..11, end).await;
        assert_eq!((second.summary.cached, second.summary.recovered), (0, 8), "{end:?}");
        assert_eq!((calls.take(), store.count(Call::Cached) - looked_up), (vec![5, 10], 2), "{end:?}");
    }
}

/// A run that stops while items are looked up ends immediately, and counts them as not started.
#[tokio::test(start_paused = true)]
async fn durable_rule_5_a_stopped_run_waits_for_no_lookup() {
    for end in End::all() {
        for has_timeout in [false, true] {
            let (store, token) = (Rigged::on(Call::Cached, Step::Hang), CancellationToken::new());
            let builder = if has_timeout { at_once(4).run_timeout(secs(1)) } else { at_once(4) };
            let plan = thrice(&builder.build().unwrap(), &store, &Calls::default(), NEVER).token(&token);
            let begun = Instant::now();
            let stop = async {
                sleep(secs(1)).await;
                if !has_timeout {
                    token.cancel();
                }
            };
            let (report, ()) = tokio::join!(plan.cache(v1()).run(0..9, end), stop);
            assert!(report.reason.is_some() && begun.elapsed() == secs(1), "{end:?}");
            assert_eq!((report.summary.not_started, report.summary.cancelled), (9, 0), "{end:?}");
            assert_eq!(store.count(Call::Cached), 4, "{end:?}: as many at once as may run");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn durable_rule_5_signals_apply_during_lookups() {
    for end in End::of(Terminal::Spawn) {
        let latch = Arc::new(Semaphore::new(0));
        let store = Rigged::on(Call::Cached, Step::After(Arc::clone(&latch)));
        let calls = Calls::default();
        let task = at_once(2).timeout_per_item(secs(1)).build().unwrap();
        let handle = thrice(&task, &store, &calls, NEVER).cache(v1()).spawn(0..9, end);
        sleep(secs(5)).await;
        assert_eq!((handle.progress().running, handle.progress().total), (0, Some(9)), "{end:?}");
        handle.pause();
        latch.add_permits(9);
        sleep(secs(5)).await;
        assert_eq!((calls.take(), handle.progress().running), (Vec::new(), 0), "{end:?}: it is paused");
        handle.resume();
        sleep(secs(5)).await;
        assert_eq!(calls.take().len(), 9, "{end:?}");
        assert_eq!(in_time(handle).await.unwrap().successes(), 9, "{end:?}: no limit ran meanwhile");
        // All is cached. Items that a drained run is still looking up were never started.
        store.rig(|call| if call == Call::Cached { Step::Hang } else { Step::Go });
        let handle = thrice(&task, &store, &calls, NEVER).cache(v1()).spawn(0..9, end);
        sleep(secs(1)).await;
        handle.drain();
        let error = in_time(handle).await.unwrap_err();
        assert_eq!((error.summary().not_started, error.summary().elapsed), (9, secs(1)), "{end:?}");
    }
}

/// An output is written when its item has ended, even if the run has nothing to do at that time.
#[tokio::test(start_paused = true)]
async fn durable_rule_5_an_output_is_written_when_its_item_ends() {
    for end in End::of(Terminal::Spawn) {
        let store = Rigged::willing();
        let call = |_, n| async move { sleep(secs(1 + 1_000 * n)).map(|()| Ok(n)).await };
        let handle = Plan::new(&at_once(3).build().unwrap(), &store, call).cache(v1()).spawn(0..10, end);
        sleep(millis(500)).await;
        handle.pause();
        sleep(millis(501)).await;
        assert_eq!(store.count(Call::PutCached), 1, "{end:?}");
        handle.cancel();
        in_time(handle).await.unwrap_err();
    }
}

#[tokio::test(start_paused = true)]
async fn durable_rule_7_overwrite_replaces_atomically() {
    for end in End::all() {
        for cache in [v1().overwrite(), v1().serialized().overwrite()] {
            let (store, calls) = (Rigged::willing(), Calls::default());
            let task = at_once(2).build().unwrap();
            let read = async || {
                let report = thrice(&task, &store, &calls, NEVER).cache(v1()).run(0..4, end).await;
                assert_eq!(
                    (report.summary.successes, calls.take()),
                    (4, Vec::new()),
                    "{end:?}: it is never gone"
                );
                report.outputs.into_iter().map(|(_, output)| output).collect::<Vec<_>>()
            };
            thrice(&task, &store, &calls, NEVER).cache(v1()).run(0..4, end).await;
            calls.take();
            let anew = Plan::new(&task, &store, |_, n| async move {
                sleep(secs(10)).await;
                if n == 3 { Err("no") } else { Ok(100 + n) }
            });
            let anew = tokio::spawn(anew.cache(cache).run(0..4, end));
            sleep(secs(5)).await;
            assert_eq!(read().await, [0, 3, 6, 9], "{end:?}: the old, while the new is computed");
            sleep(secs(10)).await;
            assert_eq!(read().await, [100, 101, 6, 9], "{end:?}");
            let report = anew.await.unwrap();
            assert_eq!((report.summary.cached, report.summary.failures), (0, 1), "{end:?}");
            assert_eq!(read().await, [100, 101, 102, 9], "{end:?}: what fails replaces nothing");
        }
    }
}

/// The first item is still looked up when the run stops, those behind it were found.
#[tokio::test(start_paused = true)]
async fn durable_rule_5_a_stopped_run_keeps_the_indices_of_hits() {
    for end in End::all() {
        let (store, token) = (Rigged::willing(), CancellationToken::new());
        let plan = thrice(&at_once(2).build().unwrap(), &store, &Calls::default(), NEVER).cache(v1());
        plan.clone().run(1..4, end).await;
        let mut look_ups = 0;
        store.rig(move |call| {
            look_ups += usize::from(call == Call::Cached);
            if call == Call::Cached && look_ups == 1 { Step::Hang } else { Step::Go }
        });
        let stop = async {
            sleep(secs(1)).await;
            token.cancel();
        };
        let (report, ()) = tokio::join!(plan.token(&token).run(1..4, end), stop);
        assert_eq!(report.outputs, [(1, 6), (2, 9)], "{end:?}: {}", report.summary);
        assert_eq!((report.summary.not_started, report.summary.cancelled), (1, 0), "{end:?}");
    }
}
