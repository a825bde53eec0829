//! A gauge of live values, and a log of events with their times.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

/// Counts guards: the live ones, the maximum of live ones, and the total.
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

/// Counts as alive until it is dropped.
#[derive(Debug)]
pub(crate) struct Alive(Gauge);

impl Gauge {
    pub(crate) fn enter(&self) -> Alive {
        let now = self.counts.now.fetch_add(1, SeqCst) + 1;
        self.counts.peak.fetch_max(now, SeqCst);
        self.counts.ever.fetch_add(1, SeqCst);
        Alive(self.clone())
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

impl Clone for Alive {
    fn clone(&self) -> Self {
        self.0.enter()
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.counts.now.fetch_sub(1, SeqCst);
    }
}

/// Events in order, each with the milliseconds since the log was opened.
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

    /// The milliseconds of each event.
    pub(crate) fn times(&self) -> Vec<u64> {
        self.lines.lock().unwrap().iter().map(|(at, _)| *at).collect()
    }

    /// The milliseconds since the log was opened.
    pub(crate) fn millis(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap()
    }
}
