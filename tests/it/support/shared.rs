//! The parts that the tests of durable runs share, too: durations, the ends of a run, and futures that are polled a set
//! number of times.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use async_map_task::{MapTaskResult, Summary};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::time::timeout;

pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Fails if the future hangs. On a paused clock this takes no real time.
pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(24 * HOUR, future).await.expect("it hangs")
}

/// Returns a runtime with this many workers.
pub(crate) fn workers(count: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(count).enable_all().build().unwrap()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Terminal {
    Await,
    Spawn,
    ForEach,
    TryForEach,
    Stream,
}

/// One way to end a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) terminal: Terminal,
    pub(crate) ordered: bool,
    pub(crate) parallel: bool,
}

impl End {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        use Terminal::{Await, ForEach, Spawn, Stream, TryForEach};
        let modes = [(false, false), (false, true), (true, false), (true, true)];
        let all = [Await, Spawn, ForEach, TryForEach, Stream].into_iter().flat_map(move |terminal| {
            modes.into_iter().map(move |(ordered, parallel)| Self { terminal, ordered, parallel })
        });
        all.filter(|end| end.gives_outcomes() || !end.ordered)
    }

    /// The ends with this terminal.
    pub(crate) fn of(terminal: Terminal) -> impl Iterator<Item = Self> {
        Self::all().filter(move |end| end.terminal == terminal)
    }

    /// Returns `true` if each outcome is given out while the run continues.
    pub(crate) fn gives_outcomes(self) -> bool {
        !matches!(self.terminal, Terminal::Await | Terminal::Spawn)
    }
}

/// Checks the properties of every result, regardless of how its run ended.
pub(crate) fn check_account<T, E>(result: &MapTaskResult<T, E>) {
    check_summary(&result.summary);
    assert_eq!(result.results.len(), result.total());
    assert_eq!(result.results.iter().flatten().count(), result.successes(), "{}", result.summary);
    assert_eq!(result.errors.len(), result.failures());
    assert!(result.errors.keys().all(|index| result.results[*index].is_none()));
}

pub(crate) fn check_summary(summary: &Summary) {
    let Summary { total, successes, failures, cancelled, not_started, .. } = *summary;
    assert_eq!(total, successes + failures + cancelled + not_started, "{summary}");
}

/// A waker with clones that can be counted: every future, timer, token and source that still waits holds one.
#[derive(Debug, Default)]
pub(crate) struct Woken(pub(crate) Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// Polls a future at most this many times, each time after it was woken, and then no more.
pub(crate) async fn poll_times<F: Future>(
    mut future: Pin<&mut F>,
    times: usize,
    woken: &Arc<Woken>,
) -> Option<F::Output> {
    let waker = Waker::from(Arc::clone(woken));
    for time in 0..times {
        if time > 0 {
            woken.0.notified().await;
        }
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
    }
    None
}
