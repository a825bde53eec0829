//! Observers of a task can have a part for each run.

use std::future::{pending, ready};
use std::sync::{Arc, Mutex};

use async_map_task::{AsyncMapTask, AsyncMapTaskBuilder, Event, Observer};
use futures::FutureExt;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::every_end::{End, Plan};
use crate::support::{Log, after, at_once, in_time, secs};

type Notes = Arc<Mutex<Vec<String>>>;

fn word(event: &Event<'_>) -> Option<&'static str> {
    match event {
        Event::RunStarted { .. } => Some("started"),
        Event::ItemSettled { .. } => Some("settled"),
        Event::RunFinished { .. } => Some("finished"),
        _ => None,
    }
}

/// Gives each run a part with a number of its own.
struct Numbered(Notes, Arc<Mutex<usize>>);

/// Notes the events of one run, and that it is dropped.
struct OfRun(Notes, usize);

impl Numbered {
    fn new() -> (Self, Notes) {
        let notes = Notes::default();
        (Self(Arc::clone(&notes), Arc::default()), notes)
    }
}

impl Observer for Numbered {
    fn on_event(&self, event: &Event<'_>) {
        panic!("{event:?} belongs to the part of a run");
    }

    fn for_run(&self) -> Option<Arc<dyn Observer + Send + Sync>> {
        let mut runs = self.1.lock().unwrap();
        *runs += 1;
        Some(Arc::new(OfRun(Arc::clone(&self.0), *runs)))
    }
}

impl Observer for OfRun {
    fn on_event(&self, event: &Event<'_>) {
        if let Some(word) = word(event) {
            self.0.lock().unwrap().push(format!("{}: {word}", self.1));
        }
    }
}

impl Drop for OfRun {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(format!("{}: dropped", self.1));
    }
}

fn take(notes: &Notes) -> Vec<String> {
    std::mem::take(&mut notes.lock().unwrap())
}

#[tokio::test(start_paused = true)]
async fn each_run_has_its_part_of_an_observer_at_every_end() {
    for end in End::all() {
        let (observer, notes) = Numbered::new();
        let task = AsyncMapTask::builder().observer(Arc::new(observer)).build().unwrap();
        for run in 1..3 {
            let plan = Plan::new(&task, futures::stream::iter([7]), |_, n| ready(Ok(n)));
            assert!(take(&notes).is_empty(), "a part is created at the first poll");
            in_time(plan.run(end)).await;
            tokio::time::sleep(secs(1)).await;
            let expected = ["started", "settled", "finished", "dropped"].map(|word| format!("{run}: {word}"));
            assert_eq!(take(&notes), expected, "{end:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_run_drops_its_part_of_an_observer() {
    let (observer, notes) = Numbered::new();
    let task = AsyncMapTask::builder().observer(observer).build().unwrap();
    let mut runs: Vec<_> =
        (0..2).map(|_| Box::pin(task.run([()], |()| pending::<Result<(), String>>()))).collect();
    for run in &mut runs {
        assert!(run.now_or_never().is_none());
    }
    assert_eq!(take(&notes), ["1: started", "2: started"]);
    drop(runs.remove(0));
    assert_eq!(take(&notes), ["1: dropped"]);
    drop(runs);
    assert_eq!(take(&notes), ["2: dropped"]);
    drop(task.run([()], |()| pending::<Result<(), String>>()));
    assert!(take(&notes).is_empty(), "a run that is not polled has no part");
}

#[tokio::test(start_paused = true)]
async fn parts_and_other_observers_keep_their_order() {
    let (observer, notes) = Numbered::new();
    let note = |name: &'static str| {
        let notes = Arc::clone(&notes);
        move |event: &Event<'_>| {
            if let Some(word) = word(event) {
                notes.lock().unwrap().push(format!("{name}: {word}"));
            }
        }
    };
    let task = AsyncMapTask::builder().observer(note("a")).observer(observer).observer(note("b"));
    let task = task.build().unwrap();
    task.over([()]).map(|()| ready(Ok::<_, String>(()))).observe(note("run")).await.unwrap();
    let of_all = |word: &'static str| ["a", "1", "b", "run"].map(|name| format!("{name}: {word}"));
    let mut expected: Vec<_> = ["started", "settled", "finished"].into_iter().flat_map(of_all).collect();
    expected.push("1: dropped".to_owned());
    assert_eq!(take(&notes), expected);
}

/// Notes when a run is stopping, and when it ends.
fn noting_stops(builder: AsyncMapTaskBuilder) -> (AsyncMapTask, Log<String>) {
    let log = Log::open();
    let notes = log.clone();
    let note = move |event: &Event<'_>| match event {
        Event::RunStopping { running, draining, reason, .. } => {
            let reason = reason.map_or("enough".to_owned(), ToString::to_string);
            notes.note(format!("{running} running, draining: {draining}, {reason}"));
        }
        Event::RunFinished { .. } => notes.note("finished".to_owned()),
        _ => {}
    };
    (builder.observer(note).build().unwrap(), log)
}

#[tokio::test(start_paused = true)]
async fn observers_know_that_a_run_is_stopping() {
    let slow = |n: u64| after(secs(10), Ok::<_, &str>(n));
    for parallel in [false, true] {
        let (task, log) = noting_stops(at_once(3).cancel_grace(secs(5)));
        let run = task.over(0..9).map(slow);
        let handle = if parallel { run.parallel().spawn() } else { run.spawn() };
        sleep(secs(1)).await;
        handle.drain();
        sleep(secs(2)).await;
        handle.cancel();
        handle.await.unwrap_err();
        let expected =
            ["3 running, draining: true, cancelled", "3 running, draining: false, cancelled", "finished"];
        assert_eq!(log.lines(), expected, "parallel: {parallel}");
    }
    // Nothing runs any more, or every item settles.
    let (task, log) = noting_stops(at_once(3));
    let token = CancellationToken::new();
    token.cancel();
    task.over(0..9).map(slow).cancellation_token(token).await.unwrap_err();
    task.over(0..9).map(slow).await.unwrap();
    assert_eq!(log.lines(), ["finished", "finished"]);

    let (task, log) = noting_stops(at_once(3).fail_fast(true).cancel_grace(secs(5)));
    let work = |n: u64| async move { after(secs(1 + n), if n == 0 { Err("no") } else { Ok(n) }).await };
    task.over(0..9).map(work).await.unwrap_err();
    assert!(log.lines()[0].starts_with("2 running, draining: false, "));
    let (task, log) = noting_stops(at_once(3).min_successes(1).early_success(true));
    task.over(0..9).map(|n: u64| after(secs(1 + n), Ok::<_, &str>(n))).await.unwrap();
    assert_eq!(log.lines(), ["2 running, draining: false, enough", "finished"]);
}
