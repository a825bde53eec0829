//! A run, from before its first poll to its end.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::drop_notice::Notice;
use super::outlined::Outlined;
use super::output::sink::Deliver;
pub(crate) use super::scheduler::Options;
use super::{Drive, Driver, Ending, Plan, Rest};

/// The parts of a run.
pub(crate) struct Setup<W: Plan> {
    pub(crate) source: W::Source,
    pub(crate) parts: Parts<W>,
    pub(crate) options: Options,
    /// Tells a handle or a stream the end of a run that is dropped.
    pub(crate) notice: Option<Box<dyn Notice<Rest<W>>>>,
}

/// The parts of a run that its options and its end can replace.
pub(crate) struct Parts<W: Plan> {
    pub(crate) call: W::Call,
    pub(crate) hooks: W::Hooks,
    pub(crate) sink: W::Sink,
    pub(crate) outcomes: W::Outcomes,
    pub(crate) store: W::Store,
}

impl<W: Plan> Setup<W> {
    /// Returns the same run with other parts, before its notice is set.
    pub(crate) fn change<V>(self, change: impl FnOnce(Parts<W>, &Options) -> Parts<V>) -> Setup<V>
    where
        V: Plan<Source = W::Source>,
    {
        let Self { source, parts, options, .. } = self;
        Setup { source, parts: change(parts, &options), options, notice: None }
    }
}

/// A run, and the sink of its outcomes if the driver polls it: a future of the end of the run.
pub struct Running<W: Plan, D> {
    phase: Outlined<Phase<W>>,
    sink: D,
}

/// A run before its first poll, from there to its end, or neither.
struct Phase<W: Plan> {
    setup: Option<Setup<W>>,
    driver: Option<Box<Driver<W>>>,
}

impl<W: Plan> Default for Phase<W> {
    fn default() -> Self {
        Self { setup: None, driver: None }
    }
}

impl<W: Plan, D> Running<W, D> {
    pub(crate) fn new(setup: Option<Setup<W>>, sink: D) -> Self {
        Self { phase: Outlined::new(Phase { setup, driver: None }), sink }
    }

    /// Returns the parts of the run, if it was not polled yet. Otherwise the run is dropped.
    pub(crate) fn into_setup(mut self) -> Option<Setup<W>> {
        self.phase.setup.take()
    }
}

// Nothing in a run is pinned in place: the source, the workers, the timers and the calls of the sink are on the heap.
impl<W: Plan, D> Unpin for Running<W, D> {}

impl<W: Drive, D: Deliver<W::Output, W::Error>> Future for Running<W, D> {
    type Output = Ending<Rest<W>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(setup) = this.phase.setup.take() {
            this.phase.driver = Some(Box::new(Driver::new(setup)));
        }
        // Taken out of its field while it is polled, so that a panic leaves nothing half done behind.
        let mut taken = Outlined::new(this.phase.driver.take());
        let Some(driver) = &mut *taken else { unreachable!("a run was polled after it completed") };
        let polled = driver.poll(cx, &mut this.sink);
        if polled.is_pending() {
            this.phase.driver = taken.take();
        }
        polled
    }
}

impl<W: Plan, D> fmt::Debug for Running<W, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (&self.phase.setup, &self.phase.driver) {
            (Some(_), _) => "ready",
            (None, Some(_)) => "running",
            (None, None) => "over",
        })
    }
}

impl<W: Plan> fmt::Debug for Setup<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("config", &self.options.config).finish_non_exhaustive()
    }
}
