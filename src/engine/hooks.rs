//! The options of one run that are functions of the caller's.

use std::fmt;
use std::time::Duration;

use crate::observe::{Event, Observer};

/// What the caller wants to be asked and told.
pub trait Hooks<E> {
    /// Whether an error may be retried.
    fn is_retryable(&self, error: &E) -> bool;

    /// The wait before the retry, where the error itself names one.
    fn retry_after(&self, error: &E) -> Option<Duration>;

    /// Who wants to see the events.
    fn observer(&self) -> Option<&dyn Observer>;
}

/// The hooks as they were given, each one optional.
pub struct HookSet<P, A, O> {
    pub(crate) retry_if: Option<P>,
    pub(crate) retry_after: Option<A>,
    pub(crate) observer: Option<O>,
}

/// No hook at all: every error is retried, no error names its wait, and nobody watches.
pub(crate) type NoHooks<E> = HookSet<fn(&E) -> bool, fn(&E) -> Option<Duration>, fn(&Event<'_>)>;

impl<P, A, O> HookSet<P, A, O> {
    pub(crate) const NONE: Self = Self { retry_if: None, retry_after: None, observer: None };
}

impl<P, A, O, E> Hooks<E> for HookSet<P, A, O>
where
    P: Fn(&E) -> bool,
    A: Fn(&E) -> Option<Duration>,
    O: Observer,
{
    fn is_retryable(&self, error: &E) -> bool {
        self.retry_if.as_ref().is_none_or(|retry_if| retry_if(error))
    }

    fn retry_after(&self, error: &E) -> Option<Duration> {
        self.retry_after.as_ref().and_then(|retry_after| retry_after(error))
    }

    fn observer(&self) -> Option<&dyn Observer> {
        self.observer.as_ref().map(|observer| observer as &dyn Observer)
    }
}

impl<P, A, O> fmt::Debug for HookSet<P, A, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookSet")
            .field("retry_if", &self.retry_if.is_some())
            .field("retry_after", &self.retry_after.is_some())
            .field("observer", &self.observer.is_some())
            .finish()
    }
}
