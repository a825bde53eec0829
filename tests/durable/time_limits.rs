//! Stores that do not answer: every call of a run has a time limit, and a run past its time limit does not wait for its
//! store.

use async_map_task::store::{DEFAULT_TIME_LIMIT, StoreError};
use async_map_task::{Cache, Origin};
use tokio::time::{Instant, sleep};

use crate::rigged::{Call, Rigged, Step};
use crate::support::{
    Calls, End, NEVER, Plan, Terminal, at_once, ended_by_store, in_time, lenient, millis, secs, store_error,
    thrice,
};

const ITEMS: u64 = 40;

/// The calls of a run with all options, each of which hangs from its nth time on.
const HANGING: [(Call, usize); 12] = [
    (Call::OpenRun, 1),
    (Call::RenewRun, 1),
    (Call::CloseRun, 1),
    (Call::Commit, 1),
    (Call::Commit, 3),
    (Call::Successes, 1),
    (Call::Checkpoint, 2),
    (Call::SaveCheckpoint, 2),
    (Call::PutCached, 1),
    (Call::PutCached, 5),
    (Call::Claim, 1),
    (Call::Claim, 9),
];

fn hanging_from(what: Call, nth: usize) -> Rigged {
    let mut left = nth;
    Rigged::new(move |call| {
        if call == what {
            left = left.saturating_sub(1);
        }
        if call == what && left == 0 { Step::Hang } else { Step::Go }
    })
}

#[tokio::test(start_paused = true)]
async fn the_time_limit_of_a_run_includes_its_store() {
    let limit = secs(3);
    for end in End::all() {
        for (call, nth) in HANGING {
            let store = hanging_from(call, nth);
            let task = lenient(4).run_timeout(limit).build().unwrap();
            let (calls, begun) = (Calls::default(), Instant::now());
            let noted = calls.clone();
            let plan = Plan::new(&task, &store, move |cx, n| {
                let noted = noted.clone();
                async move {
                    let checkpoint = cx.checkpoint();
                    let _: Option<u64> = checkpoint.load().await.map_err(|_| "not loaded")?;
                    sleep(millis(20)).await;
                    checkpoint.save(&n).await.map_err(|_| "not saved")?;
                    noted.note(n);
                    Ok(n)
                }
            });
            let report = plan.recover("r").cache(Cache::version("1").serialized()).run(0..ITEMS, end).await;
            let elapsed = begun.elapsed();
            let case = format!("{end:?}, {call:?} {nth}: {} in {elapsed:?}", report.summary);
            assert!(elapsed <= limit + secs(2), "{case}");
            let finished = calls.take();
            let told = report.outputs.len();
            if matches!(end.terminal, Terminal::Await | Terminal::Spawn) {
                assert_eq!(told, finished.len(), "what was finished is in the result: {case}");
            }
            let durable = store.durable();
            assert!(
                end.terminal == Terminal::Await
                    || end.terminal == Terminal::Spawn
                    || report.outputs.iter().all(|(_, n)| durable.contains(n)),
                "what was given out is durable: {case}"
            );
            // The run has ended in time if only its end hangs, or a call that nothing waits for.
            let has_time_limit = report.reason.is_some_and(|reason| reason.contains("TimedOut"));
            let is_done = report.summary.successes == ITEMS as usize;
            assert!(has_time_limit || is_done, "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_fails_the_run() {
    for (call, doing) in [
        (Call::OpenRun, "opening a run"),
        (Call::Successes, "reading outcomes"),
        (Call::Commit, "committing outcomes"),
    ] {
        let store = Rigged::on(call, Step::Hang);
        let task = at_once(4).build().unwrap();
        let begun = Instant::now();
        let run = task.over(0..ITEMS).map(|n| async move { Ok::<_, String>(n) }).recover(&store, "r");
        let error = in_time(run).await.unwrap_err();
        let StoreError::NoAnswer { limit, .. } = store_error(error.reason()) else { panic!("{error:?}") };
        assert_eq!(*limit, DEFAULT_TIME_LIMIT);
        let (result, why) = ended_by_store(Err::<_, _>(error));
        assert_eq!(why, format!("{doing}: the store did not answer within 2m"));
        let finished = if call == Call::Commit { ITEMS as usize } else { 0 };
        assert_eq!(result.successes(), finished, "{call:?}");
        assert!(begun.elapsed() < 2 * DEFAULT_TIME_LIMIT, "{call:?}: {:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_never_answers_only_causes_delays() {
    for call in [Call::Cached, Call::PutCached] {
        let (store, calls) = (Rigged::on(call, Step::Hang), Calls::default());
        let task = at_once(4).build().unwrap();
        let (plan, begun) = (thrice(&task, &store, &calls, NEVER), Instant::now());
        let report = plan.cache(Cache::version("1")).run(0..4, End::all().next().unwrap()).await;
        assert_eq!((report.reason, report.summary.successes, calls.take().len()), (None, 4, 4), "{call:?}");
        assert!(begun.elapsed() <= 2 * DEFAULT_TIME_LIMIT, "{call:?}");
    }
}

/// The next run with the id does not wait for the hanging calls: outcomes that were finished in time are recovered.
#[tokio::test(start_paused = true)]
async fn durable_outcomes_of_a_timed_out_run_are_recovered() {
    let store = hanging_from(Call::Commit, 2);
    let task = lenient(4).run_timeout(secs(3)).build().unwrap();
    let run = task.over(0..ITEMS).map(|n| async move {
        sleep(millis(n)).await;
        Ok::<_, String>(n)
    });
    let run = run.recover(&store, "r");
    let partial = in_time(run).await.unwrap_err().into_partial();
    assert_eq!(partial.successes(), ITEMS as usize, "all were finished");
    let durable = store.durable().len();
    assert!(durable > 0 && durable < ITEMS as usize, "{durable}");
    sleep(2 * DEFAULT_TIME_LIMIT).await;
    store.rig(|_| Step::Go);
    let run = task.over(0..ITEMS).map(|n| async move { Ok::<_, String>(n) }).recover(&store, "r");
    let mut recovered = 0;
    let again = run.for_each(|outcome| {
        recovered += usize::from(outcome.origin == Origin::Recovered);
        async {}
    });
    in_time(again).await.unwrap();
    assert_eq!(recovered, durable);
}
