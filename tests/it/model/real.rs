//! A case run by the engine.

mod ends;
mod observe;

use std::future::pending;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_map_task::{
    AsyncMapTask, Event, FailureKind, ItemContext, Limiter, MapTaskError, MapTaskResult, Observer,
};
use futures::stream;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

pub(super) use self::ends::run;
use super::script::{Attempt, Case, End, Source};
use super::{Look, Millis, TieBreak, millis};
use crate::support::{Alive, Gauge};

/// The error of an item.
#[derive(Debug)]
pub(crate) struct Scripted {
    retryable: bool,
    retry_after: Option<Duration>,
}

pub(crate) type Outcome = Result<MapTaskResult<usize, Scripted>, MapTaskError<usize, Scripted>>;

/// A list that items append to while the run continues, on any thread.
#[derive(Debug)]
pub(crate) struct Notes<T>(Mutex<T>);

impl<T> Notes<T> {
    pub(crate) fn borrow(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }
}

impl<T: Default> Default for Notes<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// Records that something has happened.
#[derive(Debug, Default)]
pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    fn set(&self, value: bool) {
        self.0.store(value, Ordering::SeqCst);
    }
}

/// Observations from inside the items and from the observer.
#[derive(Debug)]
pub(crate) struct Log {
    start: Instant,
    starts: Notes<Vec<(usize, u32, Millis)>>,
    settled: Notes<Vec<(usize, Millis)>>,
    /// The first item that settled as failed.
    first_failure: Notes<Option<usize>>,
    /// The error of each item that settled as failed.
    failures: Notes<Vec<(usize, FailureKind)>>,
    given: Notes<Vec<(usize, Millis)>>,
    /// The items that were given back, and the number of attempts of each.
    back: Notes<Vec<(usize, u32)>>,
    /// The number of items that the source has yielded.
    pulled: AtomicUsize,
    looks: Notes<Vec<Look>>,
    ties: Notes<TieBreak>,
    /// The running attempts, counted until their futures are dropped.
    running: Gauge,
    /// The parts of the run that are alive: its source, its function, its items and their clones.
    alive: Gauge,
    /// The token of every attempt, and a flag that is set when the attempt has returned.
    pub(crate) tokens: Notes<Vec<(CancellationToken, Arc<Flag>)>>,
}

impl Log {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            starts: Notes::default(),
            settled: Notes::default(),
            first_failure: Notes::default(),
            failures: Notes::default(),
            given: Notes::default(),
            back: Notes::default(),
            pulled: AtomicUsize::new(0),
            looks: Notes::default(),
            ties: Notes::default(),
            running: Gauge::default(),
            alive: Gauge::default(),
            tokens: Notes::default(),
        })
    }

    pub(crate) fn assert_nothing_lives(&self) {
        assert_eq!(self.running.now(), 0, "an attempt has outlived its run");
        assert_eq!(self.alive.now(), 0, "a source, a function or an item has outlived its run");
    }

    /// Checks that every item that was pulled has settled or was given back, in order and with its number of attempts.
    fn assert_no_item_is_lost(&self) {
        let (settled, back) = (self.settled.borrow(), self.back.borrow());
        assert!(back.is_sorted_by(|(one, _), (next, _)| one < next), "{back:?}");
        let mut indices: Vec<_> = settled.iter().map(|(index, _)| *index).collect();
        indices.extend(back.iter().map(|(index, _)| *index));
        indices.sort_unstable();
        let pulled = self.pulled.load(Ordering::SeqCst);
        assert!(
            indices.into_iter().eq(0..pulled),
            "{pulled} were pulled, settled {settled:?}, back {back:?}"
        );
        for (index, attempts) in back.iter() {
            let begun = self.starts.borrow().iter().filter(|(other, ..)| other == index).count();
            assert_eq!(begun, *attempts as usize, "the attempts of item {index}");
        }
    }

    fn now(&self) -> Millis {
        millis(self.start.elapsed())
    }
}

#[derive(Clone)]
struct Item {
    index: usize,
    _alive: Alive,
}

/// The map function.
fn attempt(
    script: Attempt,
    log: &Arc<Log>,
    cx: ItemContext,
    item: Item,
) -> impl Future<Output = Result<usize, Scripted>> + Send + use<> {
    let index = item.index;
    log.starts.borrow().push((index, cx.attempt(), log.now()));
    log.ties.borrow().begun.push((index, cx.attempt()));
    if script.end == End::PanicWhileBuilding && script.sleep == 0 {
        resume_unwind(Box::new("scripted"));
    }
    let running = log.running.enter();
    let ended = Arc::new(Flag::default());
    log.tokens.borrow().push((cx.cancellation_token().clone(), Arc::clone(&ended)));
    async move {
        let (_running, _item) = (running, item);
        let by_itself = async {
            for _ in 0..script.yields {
                tokio::task::yield_now().await;
            }
            finish(index, script.sleep, script.end, &ended).await
        };
        let told = async {
            let Some((later, end)) = script.when_told else { return pending().await };
            cx.cancellation_token().cancelled().await;
            finish(index, later, end, &ended).await
        };
        tokio::select! { biased; result = by_itself => result, result = told => result }
    }
}

async fn finish(index: usize, later: Millis, end: End, ended: &Flag) -> Result<usize, Scripted> {
    if later > 0 {
        sleep(Duration::from_millis(later)).await;
    }
    ended.set(end != End::Never);
    match end {
        End::Ok => Ok(index),
        End::Err { retryable, retry_after } => {
            Err(Scripted { retryable, retry_after: retry_after.map(Duration::from_millis) })
        }
        // This bypasses the panic hook, so that a million panics print nothing.
        End::Panic | End::PanicWhileBuilding => resume_unwind(Box::new("scripted")),
        End::Never => pending().await,
    }
}

/// The observer.
struct Notebook(Arc<Log>);

impl Observer for Notebook {
    fn on_event(&self, event: &Event<'_>) {
        let log = &self.0;
        match *event {
            Event::ItemStarted { index, .. } => log.ties.borrow().announced.push(index),
            Event::AttemptFailed { index, attempt, kind, retry_in, .. } => {
                log.ties.borrow().ends.push((index, attempt));
                if retry_in.is_some() {
                    log.ties.borrow().retried.push((index, attempt));
                }
                if kind == FailureKind::TimedOut {
                    log.ties.borrow().timed_out.push((index, attempt));
                }
            }
            Event::ItemSettled { index, attempts, failure, .. } => {
                match failure {
                    None => log.ties.borrow().ends.push((index, attempts)),
                    Some(kind) => {
                        let ties = &mut *log.ties.borrow();
                        if ties.retried.contains(&(index, attempts)) {
                            ties.given_up.push((index, ties.ends.len()));
                        }
                        log.first_failure.borrow().get_or_insert(index);
                        log.failures.borrow().push((index, kind));
                    }
                }
                log.settled.borrow().push((index, log.now()));
            }
            _ => {}
        }
    }
}

/// A run that is awaited, over each kind of source.
pub(crate) async fn drive(case: &Case, log: &Arc<Log>, token: CancellationToken) -> Outcome {
    let task = task(case, None);
    let of_function = log.alive.enter();
    let function = move |cx: ItemContext, item: Item| {
        let _part_of_it = &of_function;
        let script = case.attempt(item.index, cx.attempt());
        attempt(script, log, cx, item)
    };
    macro_rules! run {
        ($over:expr) => {
            $over
                .map_with_context(function)
                .retry_if(|error: &Scripted| error.retryable)
                .retry_after(|error: &Scripted| error.retry_after)
                .cancellation_token(token)
                .observe(Notebook(Arc::clone(log)))
                .await
        };
    }
    let count = case.items.len();
    let of_source = log.alive.enter();
    let item = |index| Item { index, _alive: of_source.clone() };
    let arrival =
        |gaps: &[Millis], index: usize| log.start + Duration::from_millis(gaps.iter().take(index + 1).sum());
    match &case.source {
        Source::List => run!(task.over((0..count).map(item).collect::<Vec<_>>())),
        Source::UnsizedList => run!(task.over((0..count).map(item).filter(|_| true))),
        Source::Stream { gaps } => run!(task.over_stream(stream::unfold(0, |index| async move {
            if index < count {
                sleep_until(arrival(gaps, index)).await;
            }
            (index < count).then(|| (item(index), index + 1))
        }))),
        Source::Failing { gaps, at } => run!(task.over_try_stream(stream::unfold(0, |index| async move {
            if index < count {
                sleep_until(arrival(gaps, index)).await;
            }
            let next = if index == *at { Err("the source has failed") } else { Ok(item(index)) };
            (index < count || index == *at).then_some((next, index + 1))
        }))),
    }
}

fn task(case: &Case, limiter: Option<&Limiter>) -> AsyncMapTask {
    let mut task = AsyncMapTask::builder()
        .name("model")
        .concurrency(case.concurrency)
        .look_ahead(case.look_ahead)
        .retries(case.retries)
        .retry_delay(Duration::from_millis(case.delay))
        .retry_multiplier(f64::from(case.multiplier))
        .max_retry_delay(Duration::from_millis(case.max_delay))
        .retry_jitter(0.0)
        .early_success(case.early_success)
        .fail_fast(case.fail_fast);
    if let Some(limit) = case.per_attempt {
        task = task.timeout_per_attempt(Duration::from_millis(limit));
    }
    if let Some(limit) = case.per_item {
        task = task.timeout_per_item(Duration::from_millis(limit));
    }
    if let Some(limit) = case.per_run {
        task = task.run_timeout(Duration::from_millis(limit));
    }
    if let Some(grace) = case.grace {
        task = task.cancel_grace(Duration::from_millis(grace));
    }
    if let Some(hundredths) = case.min_ratio {
        task =
            task.min_success_ratio(format!("{}.{:02}", hundredths / 100, hundredths % 100).parse().unwrap());
    }
    if let Some(least) = case.min_successes {
        task = task.min_successes(least);
    }
    if let Some(most) = case.max_failures {
        task = task.max_failures(most);
    }
    if let Some(limiter) = limiter {
        task = task.limiter(limiter);
    }
    task.build().unwrap()
}
