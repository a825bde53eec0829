//! A coordinator that a sequence starts, and then stops or lets die.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_map_task::restate::RestateError;
use async_map_task::{AsyncMapTask, MapTaskError, MapTaskResult};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::trace::{Note, Trace};
use crate::server::Server;
use crate::support::builder;
use crate::work::{Item, Output};

/// Longer than a server may be down, and longer than a killed invocation takes.
const LONGEST: Duration = Duration::from_secs(200);

/// The differences between coordinators.
#[derive(Debug, Clone)]
pub(super) struct Ways {
    pub(super) concurrency: usize,
    pub(super) retries: u32,
    pub(super) timeout: Option<Duration>,
    pub(super) grace: Duration,
    pub(super) kill_after: Duration,
}

/// The reason that an attempt has no output.
#[derive(Debug)]
pub(super) enum Failure {
    Restate(RestateError),
    /// The sequence has given up the attempt.
    GivenUp,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restate(error) => error.fmt(f),
            Self::GivenUp => f.write_str("given up"),
        }
    }
}

/// The end of a run. `None` if it was dropped.
pub(super) type Ended = Option<Result<MapTaskResult<Output, Failure>, MapTaskError<Output, Failure>>>;

/// A separate program, as far as the engine can see: it has its own runtime, which dies with it.
pub(super) struct Coordinator {
    pub(super) number: usize,
    runtime: Option<Runtime>,
    run: Option<JoinHandle<Ended>>,
    /// One for each item.
    give_up: Arc<Vec<Notify>>,
    cancel: CancellationToken,
    drop: CancellationToken,
}

impl Coordinator {
    pub(super) fn start(
        number: usize,
        ways: &Ways,
        server: &Server,
        run_id: &str,
        items: &[Item],
        trace: &Arc<Trace>,
    ) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let give_up = Arc::new(items.iter().map(|_| Notify::new()).collect::<Vec<_>>());
        let (cancel, drop) = (CancellationToken::new(), CancellationToken::new());
        let task = AsyncMapTask::builder()
            .concurrency(ways.concurrency)
            .retries(ways.retries)
            .retry_delay(Duration::from_millis(1))
            .cancel_grace(ways.grace)
            .min_success_ratio(0.0);
        let task = match ways.timeout {
            Some(timeout) => task.timeout_per_attempt(timeout),
            None => task,
        };
        let task = task.build().unwrap();
        let engine = builder(server).admin(server.admin()).kill_after(ways.kill_after).build().unwrap();
        let work = engine.handler::<Output>("Work", "work").run_id(run_id);
        let (items, trace) = (items.to_vec(), Arc::clone(trace));
        let stops = (cancel.clone(), drop.clone(), Arc::clone(&give_up));
        let run = runtime.spawn(async move {
            let (cancel, drop, give_up) = stops;
            let run = task.over(items).map_with_context(async |cx, item: Item| {
                let index = item.index;
                trace.note(Note::Calls(number, index));
                let called = tokio::select! {
                    biased;
                    () = give_up[index as usize].notified() => Err(Failure::GivenUp),
                    called = work.call(cx, item) => called.map_err(Failure::Restate),
                };
                match &called {
                    Ok(_) => trace.note(Note::IsTold(number, index)),
                    // Its call is dropped, like that of an attempt that has timed out.
                    Err(Failure::GivenUp) => {}
                    Err(error) => trace.note(Note::Fails(number, index, error.to_string())),
                }
                called
            });
            let run = run.cancellation_token(cancel).retry_if(|error| match error {
                Failure::Restate(error) => error.is_retryable(),
                Failure::GivenUp => true,
            });
            let ended = tokio::select! {
                biased;
                () = drop.cancelled() => None,
                ended = run => Some(ended),
            };
            trace.note(Note::Settled(number, engine.settled().await));
            ended
        });
        Self { number, runtime: Some(runtime), run: Some(run), give_up, cancel, drop }
    }

    /// Drops the call of an item, so that its attempt fails.
    pub(super) fn give_up(&self, item: usize) {
        self.give_up[item].notify_waiters();
    }

    pub(super) fn stop(&self, by_drop: bool) {
        if by_drop { self.drop.cancel() } else { self.cancel.cancel() }
    }

    /// Stops all of it at its current point. It sends no message to the engine.
    pub(super) async fn die(mut self, trace: &Trace) {
        self.end_runtime().await;
        // If the run was over before, it is settled, and the death changes nothing.
        trace.note(Note::Dies(self.number));
    }

    /// Waits until its run has ended and is settled.
    pub(super) async fn end(mut self) -> Result<Ended, String> {
        let ended = timeout(LONGEST, self.run.take().unwrap()).await;
        self.end_runtime().await;
        ended.map_err(|_| format!("coordinator {} does not end", self.number)).map(Result::unwrap)
    }

    async fn end_runtime(&mut self) {
        let runtime = self.runtime.take();
        spawn_blocking(move || drop(runtime)).await.unwrap();
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
