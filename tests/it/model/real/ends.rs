//! Runs plans with the engine: every end of a run, on one task or on several, under one limit or several.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_map_task::{Limiter, MapHandle, MapStream, RunError};
use futures::future::join_all;
use futures::{Stream, StreamExt, stream};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::observe::{Given, Seen, observe};
use super::{Item, Log, Notebook, Outcome, Scripted, attempt, drive, task};
use crate::model::plan::{End, Order, Plan, Run, Taker};
use crate::model::script::{Case, Source};
use crate::model::{Look, Millis, Observed, TieBreak, millis};
use crate::support::paused;

/// Runs a plan. The simplest kind of run uses the simplest sources.
pub(crate) fn run(plan: &Plan) -> (Vec<Observed>, Vec<TieBreak>) {
    paused().block_on(async {
        let start = Instant::now();
        let limiter = plan.shared.as_ref().map(|shared| Limiter::new(shared.permits));
        let changes = plan.shared.clone().zip(limiter.clone()).map(|(shared, limiter)| {
            tokio::spawn(async move {
                for (at, permits) in shared.changes {
                    sleep_until(start + Duration::from_millis(at)).await;
                    limiter.set_permits(permits);
                }
            })
        });
        let runs = plan.runs.iter().map(|run| one(Arc::new(run.clone()), start, limiter.clone()));
        let limit = Duration::from_secs(1_000_000_000);
        let seen = timeout(limit, join_all(runs.map(tokio::spawn))).await.expect("a run hangs");
        let seen = seen.into_iter().map(Result::unwrap).unzip();
        assert_eq!(limiter.map_or(0, |limiter| limiter.in_use()), 0, "permits have outlived their run");
        if let Some(changes) = changes {
            changes.abort();
            drop(changes.await);
        }
        let metrics = tokio::runtime::Handle::current().metrics();
        assert_eq!(metrics.num_alive_tasks(), 0, "a task has outlived its run");
        seen
    })
}

async fn one(run: Arc<Run>, start: Instant, limiter: Option<Limiter>) -> (Observed, TieBreak) {
    sleep_until(start + Duration::from_millis(run.begin)).await;
    let log = Log::new();
    let token = CancellationToken::new();
    let cancelling = run.case.cancel_at.map(|at| {
        let token = token.clone();
        tokio::spawn(async move {
            sleep(Duration::from_millis(at)).await;
            token.cancel();
        })
    });
    let seen = if run.is_plain() && limiter.is_none() {
        Seen::of_results(drive(&run.case, &log, token).await)
    } else {
        let seen = drive_to_its_end(&run, &log, token, limiter.as_ref()).await;
        log.assert_no_item_is_lost();
        seen
    };
    log.assert_nothing_lives();
    if let Some(cancelling) = cancelling {
        cancelling.abort();
        drop(cancelling.await);
    }
    let observed = observe(&run, &log, seen);
    let ties = std::mem::take(&mut *log.ties.borrow());
    (observed, ties)
}

/// A source of any kind: a stream that may fail, and that knows its length if it is a list.
struct Items<S> {
    items: S,
    known: Option<usize>,
}

impl<S: Stream + Unpin> Stream for Items<S> {
    type Item = S::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        self.items.poll_next_unpin(cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.known.unwrap_or(0), self.known)
    }
}

fn items(case: &Case, log: &Arc<Log>) -> impl Stream<Item = Result<Item, &'static str>> + Send + use<> {
    let (count, start, of_source) = (case.items.len(), log.start, log.alive.enter());
    let (gaps, fails_at) = match &case.source {
        Source::List | Source::UnsizedList => (vec![0; count], None),
        Source::Stream { gaps } => (gaps.clone(), None),
        Source::Failing { gaps, at } => (gaps.clone(), Some(*at)),
    };
    let script = Arc::new((gaps, of_source, Arc::clone(log)));
    let items = stream::unfold(0, move |index| {
        let script = Arc::clone(&script);
        async move {
            let (gaps, of_source, log) = &*script;
            let arrival: Millis = gaps.iter().take(index + 1).sum();
            if index < count && arrival > 0 {
                sleep_until(start + Duration::from_millis(arrival)).await;
            }
            let next = match fails_at {
                Some(at) if at == index => Err("the source has failed"),
                _ => Ok(Item { index, _alive: of_source.clone() }),
            };
            log.pulled.fetch_add(usize::from(index < count && next.is_ok()), Ordering::SeqCst);
            (index < count || fails_at == Some(index)).then_some((next, index + 1))
        }
    });
    let known = matches!(case.source, Source::List).then_some(count);
    Items { items: Box::pin(items), known }
}

async fn drive_to_its_end(
    run: &Arc<Run>,
    log: &Arc<Log>,
    token: CancellationToken,
    limiter: Option<&Limiter>,
) -> Seen {
    let of_function = log.alive.enter();
    let (script, notes) = (Arc::clone(run), Arc::clone(log));
    let (weights, back) = (Arc::clone(run), Arc::clone(log));
    let plan = task(&run.case, limiter)
        .over_try_stream(items(&run.case, log))
        .map_with_context(move |cx, item: Item| {
            let _part_of_it = &of_function;
            attempt(script.case.attempt(item.index, cx.attempt()), &notes, cx, item)
        })
        .retry_if(|error: &Scripted| error.retryable)
        .retry_after(|error: &Scripted| error.retry_after)
        .weight(move |item: &Item| weights.weights[item.index])
        .cancellation_token(token)
        .give_back(move |left| back.back.borrow().push((left.index, left.attempts)))
        .observe(Notebook(Arc::clone(log)));
    macro_rules! end {
        ($plan:expr) => {
            match &run.end {
                End::Await => Seen::of_results($plan.await),
                End::ForEach(taker) => {
                    let plan = if taker.ordered { $plan.ordered() } else { $plan };
                    let mut given = Given::default();
                    let ended = if taker.fails_at.is_some() {
                        let take = |outcome| {
                            let (nap, fails) = given.note(outcome, log, taker);
                            async move {
                                rest(nap).await;
                                if fails { Err("the sink has failed") } else { Ok(()) }
                            }
                        };
                        plan.try_for_each(take).await
                    } else {
                        plan.for_each(|outcome| rest(given.note(outcome, log, taker).0)).await
                    };
                    Seen::of_outcomes(given, ended)
                }
                End::Stream(taker) => {
                    let plan = if taker.ordered { $plan.ordered() } else { $plan };
                    consume(plan.stream(), log, taker).await
                }
                End::Spawn(orders) => Seen::of_results(steer($plan.spawn(), log, orders).await),
            }
        };
    }
    if run.parallel { end!(plan.parallel()) } else { end!(plan) }
}

async fn rest(nap: Millis) {
    if nap > 0 {
        sleep(Duration::from_millis(nap)).await;
    }
}

async fn consume(stream: MapStream<usize, Scripted>, log: &Log, taker: &Taker) -> Seen {
    let mut stream = pin!(stream);
    let mut given = Given::default();
    let mut failed: Option<RunError> = None;
    while let Some(next) = stream.next().await {
        assert!(failed.is_none(), "something comes after the error");
        match next {
            Ok(outcome) => {
                assert!(stream.summary().is_none(), "a summary before the end");
                let (nap, _) = given.note(outcome, log, taker);
                rest(nap).await;
            }
            Err(error) => failed = Some(error),
        }
    }
    assert!(stream.next().await.is_none(), "something comes after the end");
    let summary = stream.summary().expect("it has ended").clone();
    if let Some(error) = &failed {
        assert_eq!(*error.summary(), summary);
    }
    Seen::of_outcomes(given, failed.map_or(Ok(summary), Err))
}

async fn steer(mut handle: MapHandle<usize, Scripted>, log: &Log, orders: &[(Millis, Order)]) -> Outcome {
    for (at, order) in orders {
        let until = sleep_until(log.start + Duration::from_millis(*at));
        tokio::select! { biased; outcome = &mut handle => return outcome, () = until => {} }
        match *order {
            Order::Concurrency(concurrency) => handle.set_concurrency(concurrency),
            Order::Pause => handle.pause(),
            Order::Resume => handle.resume(),
            Order::Drain => handle.drain(),
            Order::Cancel => handle.cancel(),
            Order::Look => {
                let progress = handle.progress();
                assert_eq!(millis(progress.elapsed), *at);
                log.looks.borrow().push(Look {
                    at: *at,
                    successes: progress.successes,
                    failures: progress.failures,
                    running: progress.running,
                    waiting: progress.waiting_for_retry,
                    retries: progress.retries,
                });
            }
        }
    }
    handle.await
}
