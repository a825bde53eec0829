//! The options of a run that are functions of the caller. Each wraps the hooks that were there before.

use std::fmt;
use std::hash::Hash;
use std::time::Duration;

use super::super::scheduler::key_request::Room;
use super::super::scheduler::later::Later;
use super::super::wraps::wraps;
use super::leftovers::{Leftovers, OnGiveBack, passes_leftovers};
use crate::keyed_limiter::KeyedLimiter;
use crate::limiter::LimiterSet;
use crate::observe::Observer;
use crate::outcome::LeftOver;

/// The functions that the caller can set for a run. Hooks that do not answer a question pass it on to those below them.
pub trait Hooks<I, E>: Leftovers<I> {
    /// The hooks below these.
    type Below: Hooks<I, E>;

    /// `true` if errors can hold back other items. The compiler removes code that other runs do not need.
    const HOLDS: bool = Self::Below::HOLDS;

    /// `true` if the caller says which errors are overloads of the server.
    const KNOWS_OVERLOADS: bool = Self::Below::KNOWS_OVERLOADS;

    /// `true` if items have keys with limiters of their own.
    const KEYED: bool = Self::Below::KEYED;

    /// `true` if errors have a text for logs and events.
    const TEXTS: bool = Self::Below::TEXTS;

    /// Returns the hooks below these.
    fn below(&self) -> &Self::Below;

    /// Returns the hooks below these, to be changed.
    fn below_mut(&mut self) -> &mut Self::Below;

    /// Returns `true` if an error may be retried.
    #[inline]
    fn is_retryable(&self, error: &E) -> bool {
        self.below().is_retryable(error)
    }

    /// Returns the delay before the retry, if the error names one.
    #[inline]
    fn retry_after(&self, error: &E) -> Option<Duration> {
        self.below().retry_after(error)
    }

    /// Returns for how long nothing may start, if the error asks for it.
    #[inline]
    fn hold_back(&self, error: &E) -> Option<Duration> {
        self.below().hold_back(error)
    }

    /// Returns the text of an error, if errors have one.
    #[inline]
    fn error_text(&self, error: &E) -> Option<String> {
        self.below().error_text(error)
    }

    /// Returns `true` if an error is an overload of the server.
    #[inline]
    fn is_overload(&self, error: &E) -> bool {
        self.below().is_overload(error)
    }

    /// Returns the limiters of the keys of an item, if it has keys. If a keyed limiter has no room for a key, or is not to add one,
    /// returns when it may have room. What may wake other tasks is dropped later.
    fn key_limiters(&self, item: &I, may_add: bool, later: &mut Later) -> Result<Option<LimiterSet>, Room> {
        self.below().key_limiters(item, may_add, later)
    }

    /// Returns how many permits an item takes.
    #[inline]
    fn weight(&self, item: &I) -> u32 {
        self.below().weight(item)
    }

    /// Returns the label of an item, if items have labels.
    #[inline]
    fn label(&self, item: &I) -> Option<String> {
        self.below().label(item)
    }

    /// Returns the observer of the events of this run, if there is one.
    // Without a body: the compiler does not know that the hooks below live as long as `self`.
    fn observer(&self) -> Option<&dyn Observer>;

    /// Clones an item for the duration of an attempt, if it is to be given back.
    #[inline]
    fn copy(item: &I) -> Option<I> {
        Self::Below::copy(item)
    }

    /// Gives the items that did not settle back to the caller, in the order of the input.
    fn give_back(&mut self) {
        self.below_mut().give_back();
    }
}

/// The hooks below, of hooks that have them in a field.
macro_rules! below {
    () => {
        type Below = H;

        #[inline]
        fn below(&self) -> &H {
            &self.below
        }

        #[inline]
        fn below_mut(&mut self) -> &mut H {
            &mut self.below
        }
    };
    (with observer) => {
        below!();

        #[inline]
        fn observer(&self) -> Option<&dyn Observer> {
            self.below.observer()
        }
    };
}

/// No hooks: every error is retried, no error has a text or names a delay or a hold, every item takes one permit and has no label,
/// and there is no observer.
#[derive(Debug)]
pub struct NoHooks;

impl<I, E> Hooks<I, E> for NoHooks {
    type Below = Self;

    const HOLDS: bool = false;
    const KNOWS_OVERLOADS: bool = false;
    const KEYED: bool = false;
    const TEXTS: bool = false;

    fn below(&self) -> &Self {
        self
    }

    fn below_mut(&mut self) -> &mut Self {
        self
    }

    fn is_retryable(&self, _error: &E) -> bool {
        true
    }

    fn retry_after(&self, _error: &E) -> Option<Duration> {
        None
    }

    fn hold_back(&self, _error: &E) -> Option<Duration> {
        None
    }

    fn error_text(&self, _error: &E) -> Option<String> {
        None
    }

    fn is_overload(&self, _error: &E) -> bool {
        false
    }

    fn key_limiters(
        &self,
        _item: &I,
        _may_add: bool,
        _later: &mut Later,
    ) -> Result<Option<LimiterSet>, Room> {
        Ok(None)
    }

    #[inline(always)]
    fn weight(&self, _item: &I) -> u32 {
        1
    }

    fn label(&self, _item: &I) -> Option<String> {
        None
    }

    #[inline(always)]
    fn observer(&self) -> Option<&dyn Observer> {
        None
    }

    #[inline(always)]
    fn copy(_item: &I) -> Option<I> {
        None
    }

    fn give_back(&mut self) {}
}

impl<I> Leftovers<I> for NoHooks {
    const GIVES_BACK: bool = false;
    const LABELS: bool = false;

    fn leave(&mut self, _left: LeftOver<I>) {}
}

/// Declares hooks that answer one question themselves, and the plan of a run with this option.
macro_rules! hook {
    ($plan:ident: $doc:literal, $hook:ident) => {
        hook!($plan: $doc, $hook, labels: H::LABELS);
    };
    ($plan:ident: $doc:literal, $hook:ident, labels: $labels:expr) => {
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

        passes_leftovers!($hook, labels: $labels);

        impl<H, F> fmt::Debug for $hook<H, F> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($plan))
            }
        }
    };
}

hook!(RetryIf: "A run with [`retry_if`](crate::MapRun::retry_if).", OnRetryIf);

impl<I, E, H: Hooks<I, E>, F: Fn(&E) -> bool> Hooks<I, E> for OnRetryIf<H, F> {
    below!(with observer);

    fn is_retryable(&self, error: &E) -> bool {
        (self.function)(error)
    }
}

hook!(RetryAfter: "A run with [`retry_after`](crate::MapRun::retry_after).", OnRetryAfter);

impl<I, E, H: Hooks<I, E>, F: Fn(&E) -> Option<Duration>> Hooks<I, E> for OnRetryAfter<H, F> {
    below!(with observer);

    fn retry_after(&self, error: &E) -> Option<Duration> {
        (self.function)(error)
    }
}

hook!(HoldBack: "A run with [`hold_back`](crate::MapRun::hold_back).", OnHoldBack);

impl<I, E, H: Hooks<I, E>, F: Fn(&E) -> Option<Duration>> Hooks<I, E> for OnHoldBack<H, F> {
    below!(with observer);

    const HOLDS: bool = true;

    fn hold_back(&self, error: &E) -> Option<Duration> {
        (self.function)(error)
    }
}

hook!(ErrorText: "A run with [`error_text`](crate::MapRun::error_text).", OnErrorText);

impl<I, E, H: Hooks<I, E>, F: Fn(&E) -> String> Hooks<I, E> for OnErrorText<H, F> {
    below!(with observer);

    const TEXTS: bool = true;

    fn error_text(&self, error: &E) -> Option<String> {
        Some((self.function)(error))
    }
}

hook!(Overload: "A run with [`overload`](crate::MapRun::overload).", OnOverload);

impl<I, E, H: Hooks<I, E>, F: Fn(&E) -> bool> Hooks<I, E> for OnOverload<H, F> {
    below!(with observer);

    const KNOWS_OVERLOADS: bool = true;

    fn is_overload(&self, error: &E) -> bool {
        (self.function)(error)
    }
}

hook!(LimitPer: "A run with [`limit_per`](crate::MapRun::limit_per).", OnLimitPer);

/// A function that returns the key of an item, and the limiter of the keys.
#[derive(Debug)]
pub struct PerKey<F, K> {
    pub(crate) key: F,
    pub(crate) limiter: KeyedLimiter<K>,
}

impl<I, E, H, F, K> Hooks<I, E> for OnLimitPer<H, PerKey<F, K>>
where
    H: Hooks<I, E>,
    F: Fn(&I) -> K,
    K: Eq + Hash + Clone + Send + 'static,
{
    below!(with observer);

    const KEYED: bool = true;

    fn key_limiters(&self, item: &I, may_add: bool, later: &mut Later) -> Result<Option<LimiterSet>, Room> {
        let below = self.below.key_limiters(item, may_add, later)?;
        let PerKey { key, limiter } = &self.function;
        let key = key(item);
        let mut own = limiter.known(&key);
        if own.is_none() && may_add {
            let (added, wakers) = limiter.limiter(&key).unzip();
            later.wakers(wakers);
            own = added;
        }
        let Some(own) = own else {
            later.limiters(below);
            return Err(Box::pin(limiter.room()));
        };
        Ok(Some(match below {
            Some(below) => below.and(&own),
            None => own.into(),
        }))
    }
}

hook!(Weight: "A run with [`weight`](crate::MapRun::weight).", OnWeight);

impl<I, E, H: Hooks<I, E>, F: Fn(&I) -> u32> Hooks<I, E> for OnWeight<H, F> {
    below!(with observer);

    #[inline]
    fn weight(&self, item: &I) -> u32 {
        (self.function)(item).max(1)
    }
}

hook!(Label: "A run with [`label`](crate::MapRun::label).", OnLabel, labels: true);

impl<I, E, H: Hooks<I, E>, F: Fn(&I) -> String> Hooks<I, E> for OnLabel<H, F> {
    below!(with observer);

    fn label(&self, item: &I) -> Option<String> {
        Some((self.function)(item))
    }
}

hook!(Observe: "A run with [`observe`](crate::MapRun::observe).", OnObserve);

impl<I, E, H: Hooks<I, E>, O: Observer> Hooks<I, E> for OnObserve<H, O> {
    below!();

    #[inline]
    fn observer(&self) -> Option<&dyn Observer> {
        Some(&self.function)
    }
}

impl<I: Clone, E, H: Hooks<I, E>, F: FnMut(LeftOver<I>)> Hooks<I, E> for OnGiveBack<H, F, I> {
    below!(with observer);

    #[inline]
    fn copy(item: &I) -> Option<I> {
        Some(item.clone())
    }

    fn give_back(&mut self) {
        self.give_all_back();
    }
}
