//! A run, from before its first poll to its end.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio_util::sync::CancellationToken;

use super::collector::Collector;
use super::commit_log::Durability;
use super::drop_notice::Notice;
use super::outcome_queue::OutcomeQueue;
use super::outlined::Outlined;
use super::sink::{Deliver, NoSink};
use super::{Drive, Driver, Ending, Types};
use crate::config::Config;
use crate::progress::Reporter;

/// The parts of a run.
pub(crate) struct Setup<W: Types> {
    pub(crate) source: W::Source,
    pub(crate) call: W::Call,
    pub(crate) hooks: W::Hooks,
    pub(crate) sink: W::Sink,
    pub(crate) options: Options<W::Item, W::Output, W::Error>,
}

/// The options of a run, apart from its functions.
pub(crate) struct Options<I, T, E> {
    pub(crate) plain: PlainOptions,
    pub(crate) collector: Outlined<Collector<T, E>>,
    pub(crate) durability: Outlined<Durability<I, T, E>>,
    /// Tells a handle or a stream the end of a run that is dropped.
    pub(crate) notice: Option<Box<dyn Notice<T, E>>>,
}

/// The options that do not depend on the types of the run.
pub(crate) struct PlainOptions {
    pub(crate) config: Arc<Config>,
    /// The type name of the map function, which names the run if the task has no name.
    pub(crate) function: &'static str,
    pub(crate) token: Option<CancellationToken>,
    /// `true` if outcomes are given out in the order of the input.
    pub(crate) ordered: bool,
    /// Lets a handle or a stream control the run and ask for its progress.
    pub(crate) reporter: Option<Reporter>,
}

impl PlainOptions {
    pub(crate) fn name(&self) -> &str {
        self.config.name.as_deref().unwrap_or(self.function)
    }
}

impl<W: Types> Setup<W> {
    pub(crate) fn new(
        config: Arc<Config>,
        function: &'static str,
        (source, call, hooks): (W::Source, W::Call, W::Hooks),
    ) -> Self
    where
        W: Types<Sink = NoSink>,
    {
        let plain = PlainOptions { config, function, token: None, ordered: false, reporter: None };
        let (collector, durability) = Default::default();
        let options = Options { plain, collector, durability, notice: None };
        Self { source, call, hooks, sink: NoSink, options }
    }

    /// Returns the same run with another function or other hooks.
    pub(crate) fn change<V>(self, change: impl FnOnce(W::Call, W::Hooks) -> (V::Call, V::Hooks)) -> Setup<V>
    where
        V: Types<Item = W::Item, Source = W::Source, Output = W::Output, Error = W::Error, Sink = W::Sink>,
    {
        let Self { source, call, hooks, sink, options } = self;
        let (call, hooks) = change(call, hooks);
        Setup { source, call, hooks, sink, options }
    }

    /// Returns the same run with a sink that gets the outcomes as they come.
    pub(crate) fn hand_to<K>(self, sink: K) -> Setup<W::With<K>> {
        let Self { source, call, hooks, mut options, .. } = self;
        *options.collector = Collector::Queue(OutcomeQueue::new(options.plain.ordered));
        Setup { source, call, hooks, sink, options }
    }
}

/// A run, and the sink of its outcomes if the driver polls it: a future of the end of the run.
pub struct Running<W: Types, D> {
    phase: Outlined<Phase<W>>,
    sink: D,
}

#[derive(Default)]
enum Phase<W: Types> {
    Ready(Setup<W>),
    Running(Box<Driver<W>>),
    #[default]
    Over,
}

impl<W: Types, D> Running<W, D> {
    pub(crate) fn new(setup: Option<Setup<W>>, sink: D) -> Self {
        Self { phase: Outlined::new(setup.map_or(Phase::Over, Phase::Ready)), sink }
    }

    /// Returns the parts of the run, if it was not polled yet. Otherwise the run is dropped.
    pub(crate) fn into_setup(mut self) -> Option<Setup<W>> {
        match Outlined::take(&mut self.phase) {
            Phase::Ready(setup) => Some(setup),
            Phase::Running(_) | Phase::Over => None,
        }
    }
}

// Nothing in a run is pinned in place: the source, the workers, the timers and the calls of the sink are on the heap.
impl<W: Types, D> Unpin for Running<W, D> {}

impl<W: Drive, D: Deliver<W::Output, W::Error>> Future for Running<W, D> {
    type Output = Ending<W::Output, W::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        // Taken out of its field while it is polled, so that a panic leaves nothing half done behind.
        let mut driver = match Outlined::take(&mut this.phase) {
            Phase::Ready(setup) => Box::new(Driver::new(setup)),
            Phase::Running(driver) => driver,
            Phase::Over => unreachable!("a run was polled after it had ended"),
        };
        let polled = driver.poll(cx, &mut this.sink);
        if polled.is_pending() {
            *this.phase = Phase::Running(driver);
        }
        polled
    }
}

impl<W: Types, D> fmt::Debug for Running<W, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &*self.phase {
            Phase::Ready(_) => "ready",
            Phase::Running(_) => "running",
            Phase::Over => "over",
        })
    }
}

impl<W: Types> fmt::Debug for Setup<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("config", &self.options.plain.config).finish_non_exhaustive()
    }
}
