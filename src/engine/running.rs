//! A run from before its first poll to its end.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio_util::sync::CancellationToken;

use super::collector::Collector;
use super::drop_notice::DropNotice;
use super::ledger::Keeping;
use super::outcome_queue::OutcomeQueue;
use super::sink::{Deliver, NoSink};
use super::{Drive, Driver, Ending, Types};
use crate::config::Config;
use crate::progress::Reporter;

/// What a run is made of.
pub(crate) struct Setup<W: Types> {
    pub(crate) config: Arc<Config>,
    /// The type name of the map function, which names the run where the task has no name.
    pub(crate) function: &'static str,
    pub(crate) source: W::Source,
    pub(crate) call: W::Call,
    pub(crate) hooks: W::Hooks,
    pub(crate) token: Option<CancellationToken>,
    /// Whether outcomes are given out in the order of the input.
    pub(crate) ordered: bool,
    pub(crate) collector: Collector<W::Output, W::Error>,
    pub(crate) sink: W::Sink,
    pub(crate) keeping: Keeping<W::Item, W::Output, W::Error>,
    /// Where somebody steers the run from outside.
    pub(crate) reporter: Option<Reporter>,
    /// Where somebody awaits the end of the run from another task.
    pub(crate) notice: Option<Box<DropNotice<W::Output, W::Error>>>,
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
        Self {
            config,
            function,
            source,
            call,
            hooks,
            token: None,
            ordered: false,
            collector: Collector::results(),
            sink: NoSink,
            keeping: Keeping::NOTHING,
            reporter: None,
            notice: None,
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.config.name.as_deref().unwrap_or(self.function)
    }

    /// The same run with another function or other hooks.
    pub(crate) fn change<V>(self, change: impl FnOnce(W::Call, W::Hooks) -> (V::Call, V::Hooks)) -> Setup<V>
    where
        V: Types<Item = W::Item, Source = W::Source, Output = W::Output, Error = W::Error, Sink = W::Sink>,
    {
        let Self {
            config,
            function,
            source,
            call,
            hooks,
            token,
            ordered,
            collector,
            sink,
            keeping,
            reporter,
            notice,
        } = self;
        let (call, hooks) = change(call, hooks);
        Setup {
            config,
            function,
            source,
            call,
            hooks,
            token,
            ordered,
            collector,
            sink,
            keeping,
            reporter,
            notice,
        }
    }

    /// The same run, whose outcomes are handed to a sink as they come.
    pub(crate) fn hand_to<K>(self, sink: K) -> Setup<W::With<K>> {
        let Self { config, function, source, call, hooks, token, ordered, keeping, reporter, notice, .. } =
            self;
        let collector = Collector::Queue(OutcomeQueue::new(ordered));
        Setup {
            config,
            function,
            source,
            call,
            hooks,
            token,
            ordered,
            collector,
            sink,
            keeping,
            reporter,
            notice,
        }
    }
}

/// A run and whoever takes its outcomes meanwhile: a future of its end.
pub struct Running<W: Types, D> {
    phase: Phase<W>,
    sink: D,
}

enum Phase<W: Types> {
    Ready(Setup<W>),
    Running(Box<Driver<W>>),
    Over,
}

impl<W: Types, D> Running<W, D> {
    pub(crate) fn new(setup: Option<Setup<W>>, sink: D) -> Self {
        Self { phase: setup.map_or(Phase::Over, Phase::Ready), sink }
    }

    /// What the run is made of. Once it was polled it can be made no other, and is dropped instead.
    pub(crate) fn into_setup(self) -> Option<Setup<W>> {
        match self.phase {
            Phase::Ready(setup) => Some(setup),
            Phase::Running(_) | Phase::Over => None,
        }
    }
}

// Nothing in a run is pinned in place: the source, the workers, the timers and the sink's calls have heap places
// of their own.
impl<W: Types, D> Unpin for Running<W, D> {}

impl<W: Drive, D: Deliver<W::Output, W::Error>> Future for Running<W, D> {
    type Output = Ending<W::Output, W::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        // Out of its place while it is polled, so that a panic leaves nothing half done behind.
        let mut driver = match mem::replace(&mut this.phase, Phase::Over) {
            Phase::Ready(setup) => Box::new(Driver::new(setup)),
            Phase::Running(driver) => driver,
            Phase::Over => unreachable!("a run was polled after it had ended"),
        };
        let polled = driver.poll(cx, &mut this.sink);
        if polled.is_pending() {
            this.phase = Phase::Running(driver);
        }
        polled
    }
}

impl<W: Types, D> fmt::Debug for Running<W, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.phase {
            Phase::Ready(_) => "ready",
            Phase::Running(_) => "running",
            Phase::Over => "over",
        })
    }
}

impl<W: Types> fmt::Debug for Setup<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("config", &self.config).finish_non_exhaustive()
    }
}
