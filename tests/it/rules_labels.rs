//! Labels: the names of items in log lines, errors, outcomes and events.

use std::cell::{Cell, RefCell};
use std::future::ready;
use std::sync::{Arc, Mutex};

use async_map_task::{Event, MapTaskError};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;

use crate::recorded_trace::listen;
use crate::support::{at_once, lenient, millis, one_by_one, retrying, secs};

#[tokio::test(start_paused = true)]
async fn rule_32_errors_and_log_lines_have_labels() {
    for parallel in [false, true] {
        let (memory, guard) = listen(LevelFilter::DEBUG);
        let run = retrying(1)
            .name("resize")
            .fail_fast(true)
            .build()
            .unwrap()
            .over(["dog.png", "cat.png"])
            .map(|file| ready(if file == "cat.png" { Err("no such file") } else { Ok(()) }))
            .label(|file| file.to_string());
        let error: MapTaskError<_, _> = if parallel { run.parallel().await } else { run.await }.unwrap_err();
        drop(guard);
        assert_eq!(
            error.to_string(),
            "resize: 1 of 2 items failed, fail_fast is set; item 1 (cat.png) failed first, after 2 attempts: \
             no such file"
        );
        for message in ["attempt failed, will retry", "item failed"] {
            let events = memory.events(message);
            assert_eq!((events.len(), events[0].fields.get("label")), (1, Some("cat.png")), "{message}");
        }
        let labels: Vec<_> =
            memory.spans("item").iter().map(|span| span.fields.get("label").map(str::to_owned)).collect();
        assert_eq!(labels, [Some("dog.png".to_owned()), Some("cat.png".to_owned())]);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_32_outcomes_and_their_error_have_labels() {
    let seen = RefCell::new(Vec::new());
    let run = one_by_one()
        .name("t")
        .build()
        .unwrap()
        .over([7, 8])
        .map(|n| ready(if n == 8 { Err("no") } else { Ok(n) }));
    let push = |outcome: async_map_task::ItemOutcome<_, _>| {
        seen.borrow_mut().push(outcome.label);
        ready(())
    };
    let error = run.label(|n| format!("<{n}>")).for_each(push).await.unwrap_err();
    assert_eq!(seen.take(), [Some("<7>".to_owned()), Some("<8>".to_owned())]);
    assert_eq!(
        error.to_string(),
        "t: 1 of 2 items failed, 0 allowed; item 1 (<8>) failed first, after 1 attempt"
    );
    let unlabelled = one_by_one().build().unwrap().over([7]).map(|n| ready(Ok::<_, String>(n)));
    unlabelled.for_each(async |outcome| assert_eq!(outcome.label, None)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn rule_32_a_label_is_computed_once_per_item() {
    let calls = Cell::new(0);
    let label = |n: &u32| {
        calls.set(calls.get() + 1);
        n.to_string()
    };
    let fails = |n| ready(if n % 10 == 0 { Err("no") } else { Ok(n) });
    let run = retrying(3).build().unwrap().over(0..100_u32).map(fails).label(label);
    run.await.unwrap();
    assert_eq!(calls.take(), 100);
    lenient().build().unwrap().over(0..100_u32).map(fails).label(label).await.unwrap();
    assert_eq!(calls.take(), 100);
    let run = retrying(3).build().unwrap().over(0..100_u32).map(fails).label(label);
    run.for_each(|_| ready(())).await.unwrap();
    assert_eq!(calls.take(), 100);
}

/// How the items of the test below end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Succeeds,
    Fails,
    /// Fails once, and waits for its retry.
    Waits,
    Hangs,
}

/// An item without a result has its label in the result: also one that was cancelled, one that waits for a retry, and one that
/// was pulled and has not started.
#[tokio::test(start_paused = true)]
async fn rule_32_a_result_has_the_labels_of_the_items_without_a_result() {
    use End::{Fails, Hangs, Succeeds, Waits};
    let ends = [Succeeds, Fails, Waits, Hangs, Hangs, Succeeds, Hangs];
    // The last item needs all permits, so it is pulled and does not start.
    let weight = |(index, _): &(usize, End)| if *index == 6 { 5 } else { 1 };
    let map = |cx: async_map_task::ItemContext, (index, end): (usize, End)| async move {
        match end {
            Succeeds => Ok(index),
            Fails => Err("final"),
            Waits => Err("again"),
            Hangs => {
                cx.cancellation_token().cancelled().await;
                std::future::pending().await
            }
        }
    };
    let task = at_once(5).retries(1).retry_delay(secs(60)).allow_failures();
    let task = task.accept_partial(true).build().unwrap();
    let run = || {
        let token = CancellationToken::new();
        let canceller = token.clone();
        tokio::spawn(async move {
            sleep(secs(1)).await;
            canceller.cancel();
        });
        let run = task.over(ends.into_iter().enumerate()).map_with_context(map);
        run.cancellation_token(token)
            .retry_if(|error| *error == "again")
            .weight(weight)
            .label(|(index, end)| format!("{index}: {end:?}"))
    };
    let results = [
        run().await.unwrap(),
        run().parallel().await.unwrap(),
        run().give_back(drop).await.unwrap(),
        run().give_back(drop).parallel().await.unwrap(),
        run().spawn().await.unwrap(),
    ];
    for result in results {
        assert_eq!((result.successes(), result.failures(), result.not_started()), (2, 1, 1));
        let labels: Vec<_> = (0..8).map(|index| result.label(index)).collect();
        let expected = [
            None,
            Some("1: Fails"),
            Some("2: Waits"),
            Some("3: Hangs"),
            Some("4: Hangs"),
            None,
            Some("6: Hangs"),
            None,
        ];
        assert_eq!(labels, expected);
    }
    let unlabelled = lenient().build().unwrap().over([1]).map(|_| ready(Err::<(), _>("no"))).await.unwrap();
    assert_eq!(unlabelled.label(0), None);
}

/// An item that starts after a labelled one in the same worker does not inherit its label.
#[tokio::test(start_paused = true)]
async fn rule_32_a_label_belongs_to_one_item() {
    let task = retrying(1).name("t").build().unwrap();
    let run = task.over(0..40_u32).map_with_context(|cx, n| {
        ready(match (n, cx.attempt()) {
            (39, _) => Err("last"),
            (n, 1) if n % 2 == 0 => Err("again"),
            _ => Ok(n),
        })
    });
    let seen = RefCell::new(Vec::new());
    let observed = run.label(u32::to_string).observe(|event: &Event<'_>| {
        if let Event::ItemSettled { index, label, .. } = event {
            seen.borrow_mut().push((index.to_string(), label.map(str::to_owned)));
        }
    });
    observed.await.unwrap();
    let seen = seen.take();
    assert_eq!(seen.len(), 40);
    assert!(seen.iter().all(|(index, label)| label.as_ref() == Some(index)), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn rule_46_observers_of_the_task_see_every_run() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = |who: &'static str| {
        let seen = Arc::clone(&seen);
        move |event: &Event<'_>| {
            let what = match event {
                Event::RunStarted { .. } => "run".to_owned(),
                Event::ItemStarted { index } => format!("item {index}"),
                Event::AttemptStarted { index, attempt, .. } => format!("{index}.{attempt}"),
                Event::AttemptFailed { elapsed, retry_in, .. } => format!("failed {elapsed:?} {retry_in:?}"),
                Event::AttemptSucceeded { elapsed, .. } => format!("succeeded {elapsed:?}"),
                Event::ItemSettled { attempts, elapsed, .. } => format!("settled {attempts} {elapsed:?}"),
                Event::RunFinished { .. } => "end".to_owned(),
                _ => unreachable!(),
            };
            seen.lock().unwrap().push(format!("{who}: {what}"));
        }
    };
    let task = retrying(1).observer(note("a")).observer(note("b")).build().unwrap();
    let alone = ["run", "item 0", "0.1", "failed 2s Some(1s)", "0.2", "succeeded 3s", "settled 2 6s", "end"];
    let map = |cx: async_map_task::ItemContext, ()| async move {
        sleep(secs(u64::from(cx.attempt()) + 1)).await;
        if cx.attempt() == 1 { Err("again") } else { Ok(()) }
    };
    let expected = |observers: &[&str]| -> Vec<String> {
        let lines = alone.iter().flat_map(|what| observers.iter().map(move |who| format!("{who}: {what}")));
        lines.collect()
    };
    task.over([()]).map_with_context(map).await.unwrap();
    assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), expected(&["a", "b"]));
    task.over([()]).map_with_context(map).parallel().await.unwrap();
    assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), expected(&["a", "b"]));
    task.over([()]).map_with_context(map).observe(note("c")).await.unwrap();
    assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), expected(&["a", "b", "c"]));
    let derived = task.to_builder().concurrency(2).build().unwrap();
    derived.over([()]).map_with_context(map).await.unwrap();
    assert_eq!(
        std::mem::take(&mut *seen.lock().unwrap()),
        expected(&["a", "b"]),
        "a variant has the observers"
    );
}

/// A blocking function can ask its context if it should end.
#[tokio::test]
async fn rule_28_a_blocking_function_can_end_early() {
    let (ended, has_ended) = std::sync::mpsc::channel();
    let task = at_once(1).timeout_per_attempt(millis(20)).allow_failures().build().unwrap();
    let run = task.over([5_u32]).map_blocking_with_context(move |cx, n| {
        while !cx.cancellation_token().is_cancelled() {
            std::thread::yield_now();
        }
        ended.send((cx.index(), cx.attempt(), n)).unwrap();
        Ok::<_, String>(())
    });
    assert_eq!(run.await.unwrap().summary.timeouts, 1);
    assert_eq!(has_ended.recv_timeout(secs(60)).unwrap(), (0, 1, 5));

    // Also if the run is dropped.
    let (ended, has_ended) = std::sync::mpsc::channel();
    let (started, mut has_started) = tokio::sync::mpsc::unbounded_channel();
    let run = at_once(1).build().unwrap().over([()]).map_blocking_with_context(move |cx, ()| {
        started.send(()).unwrap();
        while !cx.cancellation_token().is_cancelled() {
            std::thread::yield_now();
        }
        ended.send(()).unwrap();
        Ok::<_, String>(())
    });
    tokio::select! {
        _ = run => unreachable!(),
        _ = has_started.recv() => {}
    }
    has_ended.recv_timeout(secs(60)).unwrap();
}
