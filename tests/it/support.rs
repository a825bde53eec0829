//! What the tests of the rules share: a gauge of what is alive, a log of what happened when, numbers that
//! look random, and an iterator that says of its length what it is told to say.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// The value, after some time.
pub(crate) async fn after<T>(wait: Duration, value: T) -> T {
    sleep(wait).await;
    value
}

/// Counts guards: how many are alive, how many were alive at most, and how many there ever were.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gauge {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    now: AtomicUsize,
    peak: AtomicUsize,
    ever: AtomicUsize,
}

/// One that is alive, as long as this is.
#[derive(Debug)]
pub(crate) struct Alive {
    counts: Arc<Counts>,
}

impl Gauge {
    pub(crate) fn enter(&self) -> Alive {
        let now = self.counts.now.fetch_add(1, SeqCst) + 1;
        self.counts.peak.fetch_max(now, SeqCst);
        self.counts.ever.fetch_add(1, SeqCst);
        Alive { counts: Arc::clone(&self.counts) }
    }

    pub(crate) fn now(&self) -> usize {
        self.counts.now.load(SeqCst)
    }

    pub(crate) fn peak(&self) -> usize {
        self.counts.peak.load(SeqCst)
    }

    pub(crate) fn ever(&self) -> usize {
        self.counts.ever.load(SeqCst)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.counts.now.fetch_sub(1, SeqCst);
    }
}

/// What happened, in its order, each with the milliseconds since the log was opened.
#[derive(Debug)]
pub(crate) struct Log<T> {
    opened: Instant,
    lines: Arc<Mutex<Vec<(u64, T)>>>,
}

impl<T> Clone for Log<T> {
    fn clone(&self) -> Self {
        Self { opened: self.opened, lines: Arc::clone(&self.lines) }
    }
}

impl<T: Clone> Log<T> {
    pub(crate) fn open() -> Self {
        Self { opened: Instant::now(), lines: Arc::default() }
    }

    pub(crate) fn note(&self, what: T) {
        let at = self.millis();
        self.lines.lock().unwrap().push((at, what));
    }

    pub(crate) fn lines(&self) -> Vec<T> {
        self.lines.lock().unwrap().iter().map(|(_, what)| what.clone()).collect()
    }

    pub(crate) fn timed(&self) -> Vec<(u64, T)> {
        self.lines.lock().unwrap().clone()
    }

    /// The milliseconds since the log was opened.
    pub(crate) fn millis(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap()
    }
}

/// Numbers below a bound that look random and are the same in every test run.
#[derive(Debug, Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// An iterator with the size hint that it was given, whatever the truth is.
#[derive(Debug)]
pub(crate) struct Hinted<I> {
    pub(crate) items: I,
    pub(crate) hint: (usize, Option<usize>),
}

impl<I: Iterator> Iterator for Hinted<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        self.items.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.hint
    }
}
