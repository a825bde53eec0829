//! The options of a run that are functions of the caller.

use std::fmt;
use std::time::Duration;

use crate::observe::{Event, Observer};

/// The functions that the caller can set for a run.
pub trait Hooks<I, E> {
    /// Returns `true` if an error may be retried.
    fn is_retryable(&self, error: &E) -> bool;

    /// Returns the delay before the retry, if the error names one.
    fn retry_after(&self, error: &E) -> Option<Duration>;

    /// Returns how many permits an item takes.
    fn weight(&self, item: &I) -> u32;

    /// Returns the observer of the events, if there is one.
    fn observer(&self) -> Option<&dyn Observer>;
}

/// The hooks of the caller, each of them optional.
pub struct HookSet<P, A, G, O> {
    pub(crate) retry_if: Option<P>,
    pub(crate) retry_after: Option<A>,
    pub(crate) weight: Option<G>,
    pub(crate) observer: Option<O>,
}

/// No hooks: every error is retried, no error names a delay, every item takes one permit, and there is no observer.
pub(crate) type NoHooks<I, E> =
    HookSet<fn(&E) -> bool, fn(&E) -> Option<Duration>, fn(&I) -> u32, fn(&Event<'_>)>;

impl<P, A, G, O> HookSet<P, A, G, O> {
    pub(crate) const NONE: Self = Self { retry_if: None, retry_after: None, weight: None, observer: None };
}

impl<P, A, G, O, I, E> Hooks<I, E> for HookSet<P, A, G, O>
where
    P: Fn(&E) -> bool,
    A: Fn(&E) -> Option<Duration>,
    G: Fn(&I) -> u32,
    O: Observer,
{
    fn is_retryable(&self, error: &E) -> bool {
        self.retry_if.as_ref().is_none_or(|retry_if| retry_if(error))
    }

    fn retry_after(&self, error: &E) -> Option<Duration> {
        self.retry_after.as_ref().and_then(|retry_after| retry_after(error))
    }

    #[inline]
    fn weight(&self, item: &I) -> u32 {
        self.weight.as_ref().map_or(1, |weight| weight(item).max(1))
    }

    #[inline]
    fn observer(&self) -> Option<&dyn Observer> {
        self.observer.as_ref().map(|observer| observer as &dyn Observer)
    }
}

impl<P, A, G, O> fmt::Debug for HookSet<P, A, G, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookSet")
            .field("retry_if", &self.retry_if.is_some())
            .field("retry_after", &self.retry_after.is_some())
            .field("weight", &self.weight.is_some())
            .field("observer", &self.observer.is_some())
            .finish()
    }
}
