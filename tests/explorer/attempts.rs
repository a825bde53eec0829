//! The source and the map function of a case, and the checks of its attempts.

use std::collections::BTreeSet;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use futures::Stream;
use futures::future::select;
use shuttle::future;

use crate::case::{Case, Item, Wait};
use crate::context::ItemContext;
use crate::flag::Flag;

/// The attempts so far. The mutex is the standard library's, so that locking it is no step of the schedule.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    seen: Mutex<Seen>,
    /// Set when an attempt of the item has begun.
    begun: Vec<Flag>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The items with a running attempt, and the sum of their weights.
    running: BTreeSet<usize>,
    weight: usize,
    /// The number of attempts begun, for each item.
    begun: Vec<u32>,
    succeeded: BTreeSet<usize>,
    /// The largest `concurrency` so far. Lowering it does not end running attempts.
    bound: usize,
    wrong: Option<String>,
}

impl Attempts {
    pub(crate) fn new(case: &Case) -> Arc<Self> {
        let (begun, bound) = (vec![0; case.items.len()], case.concurrency);
        let seen = Mutex::new(Seen { begun, bound, ..Seen::default() });
        Arc::new(Self { seen, begun: case.items.iter().map(|_| Flag::default()).collect() })
    }

    /// Records a `concurrency` before it is set.
    pub(crate) fn allow(&self, bound: usize) {
        let mut seen = self.seen.lock().unwrap();
        seen.bound = seen.bound.max(bound);
    }

    /// Checks that no rule was broken so far.
    pub(crate) fn check(&self) {
        let wrong = self.seen.lock().unwrap().wrong.take();
        assert_eq!(wrong, None);
    }

    /// Checks that no attempt is running.
    pub(crate) fn check_over(&self) {
        self.check();
        let running = self.seen.lock().unwrap().running.clone();
        assert!(running.is_empty(), "attempts run on: {running:?}");
    }

    /// The map function.
    pub(crate) async fn attempt(
        self: Arc<Self>,
        context: ItemContext,
        index: usize,
        case: Arc<Case>,
    ) -> Result<usize, &'static str> {
        let item = &case.items[index];
        let attempt = self.begin(index, item, case.retries);
        self.begun[index].set();
        let _running = Running { attempts: &self, index, weight: item.weight as usize };
        match item.wait {
            None => {}
            Some(Wait::Again) => again().await,
            Some(Wait::Elsewhere) => elsewhere().await,
            Some(Wait::Cancelled) => context.cancellation_token().cancelled().await,
            Some(Wait::Next) => {
                if let Some(next) = self.begun.get(index + 1) {
                    let cancelled = context.cancellation_token().cancelled();
                    select(pin!(next.wait()), pin!(cancelled)).await;
                }
            }
        }
        if attempt <= item.failures {
            return Err("it fails");
        }
        self.seen.lock().unwrap().succeeded.insert(index);
        Ok(index)
    }

    fn begin(&self, index: usize, item: &Item, retries: u32) -> u32 {
        let seen = &mut *self.seen.lock().unwrap();
        seen.begun[index] += 1;
        seen.weight += item.weight as usize;
        let (attempt, weight, bound) = (seen.begun[index], seen.weight, seen.bound);
        if !seen.running.insert(index) {
            seen.note(format!("two attempts at item {index} at once"));
        }
        if weight > bound {
            seen.note(format!("a weight of {weight} runs, allowed is {bound}"));
        }
        if attempt > retries + 1 || seen.succeeded.contains(&index) {
            seen.note(format!("attempt {attempt} at item {index} is one too many"));
        }
        attempt
    }
}

impl Seen {
    /// Keeps the message for [`Attempts::check`]: a panic in an attempt would only settle its item.
    fn note(&mut self, wrong: String) {
        self.wrong.get_or_insert(wrong);
    }
}

struct Running<'a> {
    attempts: &'a Attempts,
    index: usize,
    weight: usize,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let seen = &mut *self.attempts.seen.lock().unwrap();
        seen.running.remove(&self.index);
        seen.weight -= self.weight;
    }
}

/// Wakes itself once.
pub(crate) async fn again() {
    let mut is_again = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut is_again, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Waits for a wake from another task.
pub(crate) async fn elsewhere() {
    let flag = Arc::new(Flag::default());
    let other = Arc::clone(&flag);
    drop(future::spawn(async move { other.set() }));
    flag.wait().await;
}

/// The source of a case, which yields the indexes of its items. If it is slow, another task makes one item after another
/// ready.
#[derive(Debug)]
pub(crate) struct Source {
    case: Arc<Case>,
    given: usize,
    ready: Vec<Arc<Flag>>,
}

impl Source {
    pub(crate) fn new(case: &Arc<Case>) -> Self {
        let items = if case.slow_source { case.items.len() } else { 0 };
        let ready: Vec<Arc<Flag>> = (0..items).map(|_| Arc::default()).collect();
        let flags = ready.clone();
        drop(future::spawn(async move {
            for flag in flags {
                future::yield_now().await;
                flag.set();
            }
        }));
        Self { case: Arc::clone(case), given: 0, ready }
    }
}

impl Stream for Source {
    type Item = usize;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        if self.given == self.case.items.len() {
            return if self.case.endless { Poll::Pending } else { Poll::Ready(None) };
        }
        if let Some(flag) = self.ready.get(self.given) {
            ready!(flag.poll(cx));
        }
        self.given += 1;
        Poll::Ready(Some(self.given - 1))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.case.items.len() - self.given;
        (left, self.case.known_total.then_some(left))
    }
}
