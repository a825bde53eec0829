//! Bars of `indicatif` that follow runs.

use std::time::Duration;

use async_map_task::{AsyncMapTask, Event};
use futures::StreamExt;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressFinish};

use crate::support::{lenient, secs};

/// A bar that is drawn nowhere.
fn bar() -> ProgressBar {
    ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_finish(ProgressFinish::AndLeave)
}

/// A run of ten items of a second each, one at a time. Items 3 and 6 fail, item 3 after a retry. A macro, because each end needs
/// the types of the run.
macro_rules! run {
    ($bar:expr) => {{
        let task = lenient().concurrency(1).retries(1).retry_delay(Duration::ZERO).build().unwrap();
        let work = |n: u32| async move {
            tokio::time::sleep(secs(1)).await;
            if n == 3 || n == 6 { Err(n) } else { Ok(n) }
        };
        task.over(0..10).map(work).retry_if(|n| *n == 3).progress_with($bar.clone())
    }};
}

fn assert_complete(bar: &ProgressBar) {
    assert_eq!((bar.position(), bar.length(), bar.is_finished()), (10, Some(10), true));
    assert_eq!(bar.message(), "2 failed, 1 retry");
}

#[tokio::test(start_paused = true)]
async fn a_bar_follows_a_run_with_every_end() {
    let awaited = bar();
    run!(&awaited).await.unwrap();
    assert_complete(&awaited);

    let sunk = bar();
    run!(&sunk).for_each(async |_| ()).await.unwrap();
    assert_complete(&sunk);

    let streamed = bar();
    assert_eq!(run!(&streamed).stream().count().await, 10);
    assert_complete(&streamed);

    let (first, second) = (bar(), bar());
    let handles = [run!(&first).spawn(), run!(&second).spawn()];
    tokio::time::sleep(Duration::from_millis(6_500)).await;
    assert_eq!((first.position(), first.message().as_str()), (5, "1 failed, 1 retry"));
    assert!(!first.is_finished());
    for handle in handles {
        handle.await.unwrap();
    }
    assert_complete(&first);
    assert_complete(&second);
}

#[tokio::test(start_paused = true)]
async fn a_bar_stays_where_a_failed_run_stopped() {
    let bar = bar();
    let task = AsyncMapTask::builder().concurrency(1).fail_fast(true).build().unwrap();
    let work = |n| async move { if n == 4 { Err(n) } else { Ok(n) } };
    task.over(0..10).map(work).progress_with(bar.clone()).await.unwrap_err();
    assert_eq!((bar.position(), bar.length(), bar.is_finished()), (5, Some(10), true));
    assert_eq!(bar.message(), "1 failed");
}

#[tokio::test(start_paused = true)]
async fn a_bar_says_that_its_run_is_stopping() {
    let bar = bar();
    let handle = run!(&bar).spawn();
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    assert_eq!(bar.message(), "1 retry");
    handle.drain();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(bar.message(), "stopping, 1 retry");
    handle.await.unwrap_err();
    assert_eq!((bar.position(), bar.message().as_str()), (5, "stopping, 1 failed, 1 retry"));
}

#[tokio::test(start_paused = true)]
async fn a_bar_of_a_source_without_a_length_keeps_its_own() {
    let odd = |n: &i32| n % 2 == 1;
    let work = |n| async move { Ok::<_, String>(n) };
    let (unknown, named) = (bar(), bar());
    unknown.set_length(70);
    let task = AsyncMapTask::default();
    let run = task.over((0..100).filter(odd)).map(work).progress_with(unknown.clone());
    let mut lengths = Vec::new();
    let look = |_| {
        lengths.push(unknown.length());
        std::future::ready(())
    };
    run.for_each(look).await.unwrap();
    assert!(lengths.iter().all(|length| *length == Some(70)));
    task.over((0..100).filter(odd)).with_total(50).map(work).progress_with(named.clone()).await.unwrap();
    assert_eq!((named.position(), named.length()), (50, Some(50)));
}

#[tokio::test(start_paused = true)]
async fn bars_and_observers_of_a_run_do_not_replace_each_other() {
    let bars = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
    let (first, second) = (bars.add(bar()), bars.add(bar()));
    let (of_task, of_run) = (std::sync::atomic::AtomicU32::new(0), std::cell::Cell::new(0));
    let of_task = std::sync::Arc::new(of_task);
    let counter = std::sync::Arc::clone(&of_task);
    let count = move |_: &Event<'_>| {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    };
    let task = AsyncMapTask::builder().observer(count).build().unwrap();
    let work = |n| async move { Ok::<_, String>(n) };
    let run = task.over(0..3).map(work).progress_with(first.clone()).progress_with(second.clone());
    run.observe(|_: &Event<'_>| of_run.set(of_run.get() + 1)).await.unwrap();
    assert_eq!((first.position(), second.position()), (3, 3));
    let events = of_task.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(events, of_run.get());

    // The bars belong to that run only.
    task.run(0..3, work).await.unwrap();
    assert_eq!((first.position(), second.position()), (3, 3));
}
