//! Whole runs through every end, and the checks of their accounts.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures::StreamExt;
use shuttle::future::{self, block_on};
use tokio_util::sync::CancellationToken;

use crate::attempts::{Attempts, Source, again, elsewhere};
use crate::case::{Case, End, Keys, Order, Range, Stop};
use crate::error::{FailureReason, MapTaskError};
use crate::explore::describe;
use crate::flag::Flag;
use crate::handle::MapHandle;
use crate::keyed_limiter::KeyedLimiter;
use crate::limiter::Limiter;
use crate::result::{MapTaskResult, Summary};
use crate::rt::world;
use crate::task::AsyncMapTask;

/// Runs with items of equal weight.
pub(crate) fn run_case() {
    explore(Range { mixed_weights: false });
}

/// Runs with items of different weights.
pub(crate) fn run_case_of_mixed_weights() {
    explore(Range { mixed_weights: true });
}

type Ended = Result<MapTaskResult<usize, &'static str>, MapTaskError<usize, &'static str>>;

/// A run, its checks, and the means to stop it.
struct Scene {
    case: Arc<Case>,
    attempts: Arc<Attempts>,
    limiter: Limiter,
    second: Limiter,
    /// The number of keys, and their limiter.
    keyed: Option<(usize, KeyedLimiter<usize>)>,
    token: CancellationToken,
    /// Set to drop the run.
    is_dropped: Flag,
}

fn explore(range: Range) {
    let case = Case::draw(range);
    describe(format!("{case:?}"));
    world::begin(case.tick, case.exhaustion);
    let scene = Arc::new(Scene {
        attempts: Attempts::new(&case),
        limiter: limiter(&case),
        second: Limiter::new(case.second.unwrap_or(1)),
        keyed: case.keys.map(keyed),
        token: CancellationToken::new(),
        is_dropped: Flag::default(),
        case: Arc::new(case),
    });
    block_on(async {
        let both = scene.case.rival.then(|| scene.spawn_rival(scene.limiters()));
        let second = scene.case.second_rival.then(|| scene.spawn_rival(vec![&scene.second]));
        scene.run().await;
        scene.attempts.check();
        for rival in both.into_iter().chain(second) {
            assert_eq!(rival.await.unwrap().successes(), 3);
        }
        world::until_no_task_is_left().await;
    });
    scene.attempts.check_over();
    for limiter in [&scene.limiter, &scene.second] {
        assert_eq!((limiter.in_use(), limiter.waiting()), (0, 0), "{limiter:?}");
    }
    if let Some((_, keyed)) = &scene.keyed {
        assert_eq!(keyed.keys(), 0);
    }
}

fn keyed(Keys { count, permits, max_keys }: Keys) -> (usize, KeyedLimiter<usize>) {
    let keyed = KeyedLimiter::builder().permits(permits).max_keys(max_keys).build().unwrap();
    (count, keyed)
}

fn limiter(case: &Case) -> Limiter {
    let limiter = Limiter::new(case.limiter.unwrap_or(1));
    if let Some(interval) = case.rate {
        limiter.set_rate(1, interval).unwrap();
    }
    limiter
}

/// Ends a run as its case says.
macro_rules! finish {
    ($scene:expr, $run:expr) => {
        match $scene.case.end {
            End::Await => {
                $scene.steer();
                $scene.check_end($scene.unless_dropped($run).await);
            }
            End::Spawn => $scene.check_end($scene.steer_handle($run.spawn()).await),
            End::ForEach => {
                $scene.steer();
                let mut given = Given::new($scene);
                let sink = |outcome: crate::outcome::ItemOutcome<_, _>| {
                    given.take(outcome.index);
                    async { $scene.be_slow().await }
                };
                let ended = $scene.unless_dropped($run.for_each(sink)).await;
                if let Some(ended) = &ended {
                    let summary = ended.as_ref().unwrap_or_else(|error| error.summary());
                    $scene.check_summary(summary, ended.as_ref().err().map(|error| error.reason()));
                    given.check(summary);
                }
            }
            End::Stream => {
                $scene.steer();
                let (mut given, mut reason) = (Given::new($scene), None);
                let mut stream = $run.stream();
                while let Some(Some(next)) = $scene.unless_dropped(stream.next()).await {
                    match next {
                        Ok(outcome) => given.take(outcome.index),
                        Err(error) => reason = Some(error),
                    }
                    $scene.be_slow().await;
                }
                if let Some(summary) = stream.summary() {
                    $scene.check_summary(summary, reason.as_ref().map(|error| error.reason()));
                    given.check(summary);
                }
            }
        }
    };
}

impl Scene {
    /// Gives an order that needs no handle.
    fn steer_limiter(&self, order: &Order) {
        match *order {
            Order::SetPermits(permits) => self.limiter.set_permits(permits),
            Order::SetRate(interval) => self.limiter.set_rate(1, interval).unwrap(),
            Order::HoldBack(time) => self.limiter.hold_back(time),
            _ => {}
        }
    }

    fn task(&self) -> AsyncMapTask {
        let case = &self.case;
        let mut builder = AsyncMapTask::builder()
            .concurrency(case.concurrency)
            .retries(case.retries)
            .retry_delay(case.retry_delay)
            .retry_jitter(0.0)
            .cancel_grace(case.grace)
            .min_success_ratio(0.0);
        for limiter in self.limiters() {
            builder = builder.limiter(limiter);
        }
        if case.fail_fast {
            builder = builder.fail_fast(true);
        }
        if let Some(enough) = case.early_success {
            builder = builder.min_successes(enough).early_success(true);
        }
        if let Some(limit) = case.timeout {
            builder = builder.timeout_per_attempt(limit);
        }
        builder.build().unwrap()
    }

    /// The limiters of the task. A rival names them in the other order.
    fn limiters(&self) -> Vec<&Limiter> {
        let first = self.case.limiter.map(|_| &self.limiter);
        first.into_iter().chain(self.case.second.map(|_| &self.second)).collect()
    }

    /// Another run under these limiters.
    fn spawn_rival(&self, limiters: Vec<&Limiter>) -> MapHandle<usize, &'static str> {
        let builder = AsyncMapTask::builder().concurrency(2);
        let task = limiters
            .into_iter()
            .rev()
            .fold(builder, |builder, limiter| builder.limiter(limiter))
            .build()
            .unwrap();
        let function = |n| async move {
            again().await;
            Ok(n)
        };
        let run = task.over(0..3_usize).map(function).parallel();
        match &self.keyed {
            Some((count, keyed)) => {
                let count = *count;
                run.limit_per(move |n: &usize| n % count, keyed).spawn()
            }
            None => run.spawn(),
        }
    }

    async fn run(self: &Arc<Self>) {
        let (case, attempts) = (Arc::clone(&self.case), Arc::clone(&self.attempts));
        let (weighed, task) = (Arc::clone(&self.case), self.task());
        let run = task
            .over_stream(Source::new(&self.case))
            .map_with_context(move |context, index| {
                Arc::clone(&attempts).attempt(context, index, Arc::clone(&case))
            })
            .weight(move |index: &usize| weighed.items[*index].weight)
            .cancellation_token(self.token.clone())
            .parallel();
        let run = if self.case.ordered { run.ordered() } else { run };
        match &self.keyed {
            Some((count, keyed)) => {
                let count = *count;
                finish!(self, run.limit_per(move |index: &usize| index % count, keyed));
            }
            None => finish!(self, run),
        }
    }

    async fn be_slow(&self) {
        if self.case.slow_sink {
            elsewhere().await;
        }
    }

    /// Awaits a future, or drops it and returns `None` once the run is to be dropped.
    async fn unless_dropped<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| match self.is_dropped.poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => future.as_mut().poll(cx).map(Some),
        })
        .await
    }

    /// Sends the orders that need no handle, from another task.
    fn steer(self: &Arc<Self>) {
        let scene = Arc::clone(self);
        drop(future::spawn(async move {
            for order in &scene.case.orders {
                scene.steer_limiter(order);
                again().await;
            }
            match scene.case.stop {
                Stop::Never | Stop::Cancel | Stop::Drain => {}
                Stop::Token => scene.token.cancel(),
                Stop::Drop => scene.is_dropped.set(),
            }
        }));
    }

    /// Sends all orders to a run in the background, then awaits it.
    async fn steer_handle(&self, handle: MapHandle<usize, &'static str>) -> Option<Ended> {
        for order in &self.case.orders {
            match *order {
                Order::Pause => handle.pause(),
                Order::Resume => handle.resume(),
                Order::SetConcurrency(concurrency) => {
                    self.attempts.allow(concurrency);
                    handle.set_concurrency(concurrency);
                }
                Order::SetPermits(_) | Order::SetRate(_) | Order::HoldBack(_) => self.steer_limiter(order),
                Order::Progress => {
                    let progress = handle.progress();
                    assert!(progress.successes + progress.failures <= self.case.items.len(), "{progress:?}");
                }
                Order::Nothing => elsewhere().await,
            }
            again().await;
        }
        handle.resume();
        match self.case.stop {
            Stop::Never => {}
            Stop::Token => self.token.cancel(),
            Stop::Cancel => handle.cancel(),
            Stop::Drain => handle.drain(),
            Stop::Drop => {
                handle.cancel();
                return None;
            }
        }
        Some(handle.await)
    }

    fn check_end(&self, ended: Option<Ended>) {
        let Some(ended) = ended else { return };
        let reason = ended.as_ref().err().map(|error| error.reason().to_string());
        let stopped = ended.as_ref().err().map(MapTaskError::reason);
        self.check_summary(
            ended.as_ref().map_or_else(MapTaskError::summary, |result| &result.summary),
            stopped,
        );
        let result = ended.unwrap_or_else(MapTaskError::into_partial);
        let MapTaskResult { results, errors, summary, .. } = result;
        let succeeded: Vec<usize> = results.iter().flatten().copied().collect();
        assert_eq!((succeeded.len(), errors.len()), (summary.successes, summary.failures), "{reason:?}");
        for (index, output) in results.iter().enumerate() {
            assert!(output.is_none_or(|output| output == index && !errors.contains_key(&index)));
        }
    }

    /// Checks the account of a run that was not dropped.
    fn check_summary(&self, summary: &Summary, reason: Option<&FailureReason>) {
        self.attempts.check_over();
        let case = &self.case;
        let Summary { total, successes, failures, cancelled, not_started, panics, .. } = *summary;
        assert_eq!(total, successes + failures + cancelled + not_started, "{summary:?}");
        assert!(total <= case.items.len() && panics == 0, "{summary:?}");
        match reason {
            Some(FailureReason::Cancelled) => assert_ne!(case.stop, Stop::Never, "nothing was cancelled"),
            Some(FailureReason::FailFast { .. }) => assert!(case.fail_fast && failures > 0),
            // Fewer items succeeded than `min_successes` requires.
            Some(reason) => assert!(case.early_success.is_some(), "{reason}"),
            None if case.early_success.is_some() => {}
            None => {
                assert_eq!((total, successes + failures), (case.items.len(), case.items.len()), "{summary:?}")
            }
        }
    }
}

/// The outcomes that a run has yielded.
struct Given {
    indexes: BTreeSet<usize>,
    ordered: bool,
}

impl Given {
    fn new(scene: &Scene) -> Self {
        Self { indexes: BTreeSet::new(), ordered: scene.case.ordered }
    }

    fn take(&mut self, index: usize) {
        let is_last = self.indexes.last().is_none_or(|last| *last < index);
        assert!(is_last || !self.ordered, "item {index} is out of order");
        assert!(self.indexes.insert(index), "item {index} was yielded twice");
    }

    fn check(&self, summary: &Summary) {
        assert_eq!(self.indexes.len(), summary.successes + summary.failures, "{summary:?}");
    }
}
