//! All rules at once: runs that fail, stop, are dropped and lose their store at random, until one succeeds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_map_task::{Cache, Limiter, Recovery};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::random::Random;
use crate::rigged::{Call, Rigged, Step};
use crate::support::{End, Plan, Report, Terminal, at_once, millis, secs};

/// The observations of a case: the computed numbers, how often each was computed, and the index that it was given out for.
#[derive(Debug, Clone, Default)]
struct Seen {
    calls: Arc<Mutex<BTreeMap<usize, usize>>>,
    given: Arc<Mutex<BTreeSet<u64>>>,
}

/// One run of a case: random settings, a store that fails at times, and perhaps an early end from outside.
async fn run(
    dice: &mut Random,
    memory: &Rigged,
    seen: &Seen,
    items: &[u64],
    end: End,
) -> (Rigged, Option<Report>) {
    let mut trouble = dice.clone();
    let is_troubled = dice.below(2) == 0;
    let store = Rigged::over(&memory.memory, move |call| match call {
        _ if !is_troubled => Step::Go,
        Call::CloseRun | Call::RenewRun => Step::Go,
        Call::Commit | Call::Successes | Call::OpenRun if trouble.below(12) == 0 => Step::Fail,
        Call::Cached | Call::PutCached | Call::Claim | Call::ReleaseClaim if trouble.below(5) == 0 => {
            Step::Fail
        }
        _ => Step::Go,
    });
    let mut builder = at_once(1 + dice.below(9) as usize).min_success_ratio(0.0).retry_delay(millis(7));
    builder = builder.retries(dice.below(3) as u32).cancel_grace(millis(dice.below(3) * 10));
    builder = match dice.below(8) {
        0 => builder.fail_fast(true),
        1 => builder.early_success(true).min_successes(1 + dice.below(20) as usize),
        2 => builder.run_timeout(millis(40 + dice.below(200))),
        3 => builder.timeout_per_item(millis(45)),
        4 => builder.limiter(&Limiter::new(3)),
        _ => builder,
    };
    let (salt, calls) = (dice.below(1_000), Arc::clone(&seen.calls));
    let plan = Plan::new(&builder.build().unwrap(), &store, move |cx, n| {
        *calls.lock().unwrap().entry(cx.index()).or_default() += 1;
        let mut dice = Random(salt + 7 * n + u64::from(cx.attempt()));
        async move {
            if dice.below(3) > 0 {
                sleep(millis(dice.below(40))).await;
            }
            match dice.below(9) {
                0 => Err("no"),
                1 => panic!("worse"),
                _ => Ok(3 * n),
            }
        }
    });
    let (token, given, watched) = (CancellationToken::new(), Arc::clone(&seen.given), store.clone());
    let before = given.lock().unwrap().clone();
    let plan = plan.recover(Recovery::run("r")).token(&token).watch(move |index| {
        let index = index as u64;
        let is_durable = before.contains(&index) || watched.durable().contains(&index);
        assert!(is_durable, "{index} was given before it was durable");
        given.lock().unwrap().insert(index);
    });
    let plan = match dice.below(4) {
        0 => plan.cache(Cache::version("1")),
        1 => plan.cache(Cache::version("1").serialized()),
        2 => plan.cache(Cache::version("1").serialized().overwrite()),
        _ => plan,
    };
    let stops_at = millis(dice.below(100));
    let how = dice.below(6);
    let items = items.to_vec();
    let is_dropped = how == 0 && end.terminal != Terminal::Spawn;
    let run = async {
        let stop = async {
            sleep(stops_at).await;
            if how == 1 {
                token.cancel();
            }
        };
        tokio::join!(plan.run(items, end), stop).0
    };
    let report = if is_dropped { timeout(stops_at, run).await.ok() } else { Some(run.await) };
    // A dropped run writes its outcomes in a separate task.
    sleep(secs(1)).await;
    (store, report)
}

#[tokio::test(start_paused = true)]
async fn durable_rules_1_to_6_hold_in_random_runs() {
    let (mut ended, mut dropped, mut failed, mut recovered) = (0, 0, 0, 0);
    for seed in 0..400 {
        let mut dice = Random(seed);
        let ends: Vec<End> = End::all().collect();
        let items: Vec<u64> = (0..1 + dice.below(60)).map(|_| 1 + dice.below(40)).collect();
        let (memory, seen) = (Rigged::willing(), Seen::default());
        let mut durable = BTreeSet::new();
        for _ in 0..6 {
            let end = ends[dice.below(ends.len() as u64) as usize];
            let what = format!("seed {seed}, {end:?}");
            seen.calls.lock().unwrap().clear();
            *seen.given.lock().unwrap() = durable.clone();
            let (store, report) = run(&mut dice, &memory, &seen, &items, end).await;
            let calls = seen.calls.lock().unwrap().clone();
            assert!(
                calls.keys().all(|index| !durable.contains(&(*index as u64))),
                "{what}: what was durable ran"
            );
            let new: BTreeSet<u64> = store.durable().into_iter().collect();
            assert!(new.is_disjoint(&durable), "{what}: it was written twice");
            let Some(report) = report else {
                durable.extend(new);
                dropped += 1;
                continue;
            };
            assert!(report.outputs.iter().all(|(index, output)| *output == 3 * items[*index]), "{what}");
            let given: BTreeSet<u64> = report.outputs.iter().map(|(index, _)| *index as u64).collect();
            assert!(new.is_subset(&given), "{what}: {new:?} is durable, and {given:?} was given");
            if end.gives_outcomes() {
                assert!(given.difference(&durable).all(|index| new.contains(index)), "{what}");
            }
            durable.extend(new);
            // The outcomes that a failed store has not made durable are in the result.
            let is_failure = report.reason.as_ref().is_some_and(|reason| reason.starts_with("Store"));
            let has_failed = is_failure || store.count(Call::Commit) > store.groups().len();
            assert!(
                has_failed || given.is_subset(&durable),
                "{what}: something was given and is not durable"
            );
            failed += usize::from(is_failure);
            (ended, recovered) = (ended + 1, recovered + report.summary.recovered);
            assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "{what}");
        }
    }
    eprintln!(
        "{ended} runs have ended, {failed} of them because of the store; {dropped} were dropped; {recovered} items were recovered"
    );
    assert!(ended > 1_000 && dropped > 50 && failed > 100 && recovered > 10_000);
}
