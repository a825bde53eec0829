//! A case run by the engine.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::time::Duration;

use async_map_task::{
    AsyncMapTask, Event, FailureKind, FailureReason, ItemContext, ItemError, MapTaskError, MapTaskResult,
    TimeoutScope,
};
use futures::stream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::script::{Case, End, Source};
use super::{Ended, Millis, Observed, Status, TieBreak, millis};

/// What an item fails with.
#[derive(Debug)]
pub(crate) struct Scripted {
    retryable: bool,
    retry_after: Option<Duration>,
}

pub(crate) type Outcome = Result<MapTaskResult<usize, Scripted>, MapTaskError<usize, Scripted>>;

/// What is seen from inside the items and from the observer.
pub(crate) struct Log {
    start: Instant,
    starts: RefCell<Vec<(usize, u32, Millis)>>,
    settled: RefCell<Vec<(usize, Millis)>>,
    ties: RefCell<TieBreak>,
    running: Cell<usize>,
    peak: Cell<usize>,
    /// What lives of the run: its source, its function, its items and their clones.
    alive: Cell<usize>,
    /// The token of every attempt, and whether it has ended by itself.
    pub(crate) tokens: RefCell<Vec<(CancellationToken, Rc<Cell<bool>>)>>,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            starts: RefCell::default(),
            settled: RefCell::default(),
            ties: RefCell::default(),
            running: Cell::new(0),
            peak: Cell::new(0),
            alive: Cell::new(0),
            tokens: RefCell::default(),
        }
    }

    pub(crate) fn assert_nothing_lives(&self) {
        assert_eq!(self.running.get(), 0, "an attempt has outlived its run");
        assert_eq!(self.alive.get(), 0, "a source, a function or an item has outlived its run");
    }

    fn now(&self) -> Millis {
        millis(self.start.elapsed())
    }
}

/// One running attempt, for as long as its future lives.
struct Running<'a>(&'a Log);

impl<'a> Running<'a> {
    fn new(log: &'a Log) -> Self {
        log.running.set(log.running.get() + 1);
        log.peak.set(log.peak.get().max(log.running.get()));
        Self(log)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
    }
}

/// A part of the run, for as long as it lives.
struct Alive<'a>(&'a Log);

impl<'a> Alive<'a> {
    fn new(log: &'a Log) -> Self {
        log.alive.set(log.alive.get() + 1);
        Self(log)
    }
}

impl Clone for Alive<'_> {
    fn clone(&self) -> Self {
        Self::new(self.0)
    }
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.0.alive.set(self.0.alive.get() - 1);
    }
}

#[derive(Clone)]
struct Item<'a> {
    index: usize,
    _alive: Alive<'a>,
}

pub(super) fn run(case: &Case) -> (Observed, TieBreak) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let log = Log::new();
        let token = CancellationToken::new();
        if let Some(at) = case.cancel_at {
            let token = token.clone();
            tokio::spawn(async move {
                sleep(Duration::from_millis(at)).await;
                token.cancel();
            });
        }
        let limit = Duration::from_secs(1_000_000_000);
        let outcome = timeout(limit, drive(case, &log, token)).await.expect("the run hangs");
        log.assert_nothing_lives();
        (observe(case, &log, outcome), log.ties.into_inner())
    })
}

pub(crate) async fn drive<'a>(case: &'a Case, log: &'a Log, token: CancellationToken) -> Outcome {
    let task = task(case);
    let of_function = Alive::new(log);
    let function = move |cx: ItemContext, item: Item<'a>| {
        let _part_of_it = &of_function;
        let index = item.index;
        log.starts.borrow_mut().push((index, cx.attempt(), log.now()));
        let script = case.attempt(index, cx.attempt());
        if script.end == End::PanicWhileBuilding && script.sleep == 0 {
            resume_unwind(Box::new("scripted"));
        }
        let running = Running::new(log);
        let ended = Rc::new(Cell::new(false));
        log.tokens.borrow_mut().push((cx.cancellation_token().clone(), Rc::clone(&ended)));
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
    };
    let observer = |event: &Event<'_>| match *event {
        Event::AttemptFailed { index, attempt, kind, .. } => {
            log.ties.borrow_mut().ends.push((index, attempt));
            if kind == FailureKind::TimedOut {
                log.ties.borrow_mut().timed_out.push((index, attempt));
            }
        }
        Event::ItemSettled { index, attempts, failure, .. } => {
            if failure.is_none() {
                log.ties.borrow_mut().ends.push((index, attempts));
            }
            log.settled.borrow_mut().push((index, log.now()));
        }
        _ => {}
    };
    macro_rules! run {
        ($over:expr) => {
            $over
                .map_with_context(function)
                .retry_if(|error: &Scripted| error.retryable)
                .retry_after(|error: &Scripted| error.retry_after)
                .cancellation_token(token)
                .observe(observer)
                .await
        };
    }
    let count = case.items.len();
    let of_source = Alive::new(log);
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

async fn finish(index: usize, later: Millis, end: End, ended: &Cell<bool>) -> Result<usize, Scripted> {
    if later > 0 {
        sleep(Duration::from_millis(later)).await;
    }
    ended.set(end != End::Never);
    match end {
        End::Ok => Ok(index),
        End::Err { retryable, retry_after } => {
            Err(Scripted { retryable, retry_after: retry_after.map(Duration::from_millis) })
        }
        // It does not go through the panic hook, so that a million of them are quiet.
        End::Panic | End::PanicWhileBuilding => resume_unwind(Box::new("scripted")),
        End::Never => pending().await,
    }
}

fn task(case: &Case) -> AsyncMapTask {
    let mut task = AsyncMapTask::builder()
        .name("model")
        .concurrency(case.concurrency)
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
    task.build().unwrap()
}

fn observe(case: &Case, log: &Log, outcome: Outcome) -> Observed {
    let end = log.now();
    let (ended, first_failure, result) = match outcome {
        Ok(result) => (Ended::Succeeded, log_first_failure(log, &result), result),
        Err(error) => {
            let ended = match *error.reason() {
                FailureReason::FailFast { index } => Ended::FailFast { index },
                FailureReason::TooManyFailures { failures, allowed } => {
                    Ended::TooManyFailures { failures, allowed }
                }
                FailureReason::Cancelled => Ended::Cancelled,
                FailureReason::TimedOut { limit } => {
                    assert_eq!(Some(millis(limit)), case.per_run);
                    Ended::TimedOut
                }
                FailureReason::Source(_) => Ended::Source,
                ref other => panic!("no case ends with {other}"),
            };
            (ended, error.first_failure().map(|(index, _)| index), error.into_partial())
        }
    };
    let starts = log.starts.borrow().clone();
    let attempts_of = |index| starts.iter().filter(|(i, _, _)| *i == index).count() as u32;
    let items: Vec<_> = (0..case.items.len())
        .map(|index| {
            let attempts = attempts_of(index);
            let status = match (result.results.get(index), result.errors.get(&index)) {
                (Some(Some(value)), None) => {
                    assert_eq!(*value, index, "a result is in a wrong slot");
                    Status::Succeeded
                }
                (Some(None), Some(error)) => {
                    assert_eq!(error.attempts(), attempts);
                    match error {
                        ItemError::Failed { .. } => Status::Failed,
                        ItemError::TimedOut { scope: TimeoutScope::Attempt, .. } => Status::TimedOutAttempt,
                        ItemError::TimedOut { scope: TimeoutScope::Item, .. } => Status::TimedOutItem,
                        ItemError::Panicked { .. } => Status::Panicked,
                        other => panic!("an unknown error: {other:?}"),
                    }
                }
                (Some(None) | None, None) if attempts == 0 => Status::NotStarted,
                (Some(None), None) => Status::Cancelled,
                (slot, error) => panic!("slot {slot:?} and error {error:?} contradict each other"),
            };
            (status, attempts)
        })
        .collect();
    let summary = &result.summary;
    let of = |status| items.iter().filter(|(s, _)| *s == status).count();
    assert_eq!(summary.successes, of(Status::Succeeded));
    assert_eq!(summary.cancelled, of(Status::Cancelled));
    assert_eq!(summary.failures, result.errors.len());
    assert_eq!(summary.total, summary.successes + summary.failures + summary.cancelled + summary.not_started);
    assert_eq!(millis(summary.elapsed), end);
    assert_eq!(result.results.len(), summary.total);
    Observed {
        ended,
        end,
        items,
        starts,
        settled: log.settled.borrow().clone(),
        peak: log.peak.get(),
        retries: summary.retries,
        timeouts: summary.timeouts,
        panics: summary.panics,
        first_failure,
    }
}

/// A run that succeeds does not say which item failed first; the log does.
fn log_first_failure(log: &Log, result: &MapTaskResult<usize, Scripted>) -> Option<usize> {
    let settled = log.settled.borrow();
    settled.iter().map(|(index, _)| *index).find(|index| result.errors.contains_key(index))
}
