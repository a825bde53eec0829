//! The options of a run that are functions of the caller. Each wraps the hooks that were there before.

use std::fmt;
use std::time::Duration;

use super::super::wraps::wraps;
use crate::observe::Observer;

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

/// No hooks: every error is retried, no error names a delay, every item takes one permit, and there is no observer.
#[derive(Debug)]
pub struct NoHooks;

impl<I, E> Hooks<I, E> for NoHooks {
    fn is_retryable(&self, _error: &E) -> bool {
        true
    }

    fn retry_after(&self, _error: &E) -> Option<Duration> {
        None
    }

    #[inline(always)]
    fn weight(&self, _item: &I) -> u32 {
        1
    }

    #[inline(always)]
    fn observer(&self) -> Option<&dyn Observer> {
        None
    }
}

/// Declares hooks that replace one function of those below them, and the plan of a run with this option.
macro_rules! hook {
    ($plan:ident: $doc:literal, $hook:ident) => {
        wraps! {
            #[doc = $doc]
            $plan<W, F> {
                Call: W::Call,
                Hooks: $hook<W::Hooks, F>,
                Mode: W::Mode,
                Sink: W::Sink,
                Outcomes: W::Outcomes,
                Store: W::Store,
            }
        }

        #[doc = $doc]
        pub struct $hook<H, F> {
            pub(crate) below: H,
            pub(crate) function: F,
        }

        impl<H, F> fmt::Debug for $hook<H, F> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($plan))
            }
        }
    };
}

/// Passes a question on to the hooks below.
macro_rules! below {
    ($($question:ident($($arg:ident: $of:ty)?) -> $answer:ty;)*) => {
        $(
            #[inline]
            fn $question(&self $(, $arg: $of)?) -> $answer {
                self.below.$question($($arg)?)
            }
        )*
    };
}

hook!(RetryIf: "A run with [`retry_if`](crate::MapRun::retry_if).", OnRetryIf);

impl<I, E, H: Hooks<I, E>, F: Fn(&E) -> bool> Hooks<I, E> for OnRetryIf<H, F> {
    fn is_retryable(&self, error: &E) -> bool {
        (self.function)(error)
    }

    below! {
        retry_after(error: &E) -> Option<Duration>;
        weight(item: &I) -> u32;
        observer() -> Option<&dyn Observer>;
    }
}

hook!(RetryAfter: "A run with [`retry_after`](crate::MapRun::retry_after).", OnRetryAfter);

impl<I, E, H: Hooks<I, E>, F: Fn(&E) -> Option<Duration>> Hooks<I, E> for OnRetryAfter<H, F> {
    fn retry_after(&self, error: &E) -> Option<Duration> {
        (self.function)(error)
    }

    below! {
        is_retryable(error: &E) -> bool;
        weight(item: &I) -> u32;
        observer() -> Option<&dyn Observer>;
    }
}

hook!(Weight: "A run with [`weight`](crate::MapRun::weight).", OnWeight);

impl<I, E, H: Hooks<I, E>, F: Fn(&I) -> u32> Hooks<I, E> for OnWeight<H, F> {
    #[inline]
    fn weight(&self, item: &I) -> u32 {
        (self.function)(item).max(1)
    }

    below! {
        is_retryable(error: &E) -> bool;
        retry_after(error: &E) -> Option<Duration>;
        observer() -> Option<&dyn Observer>;
    }
}

hook!(Observe: "A run with [`observe`](crate::MapRun::observe).", OnObserve);

impl<I, E, H: Hooks<I, E>, O: Observer> Hooks<I, E> for OnObserve<H, O> {
    #[inline]
    fn observer(&self) -> Option<&dyn Observer> {
        Some(&self.function)
    }

    below! {
        is_retryable(error: &E) -> bool;
        retry_after(error: &E) -> Option<Duration>;
        weight(item: &I) -> u32;
    }
}
