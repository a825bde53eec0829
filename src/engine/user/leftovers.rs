//! `give_back`: items that were pulled and did not settle go back to the caller.

use std::fmt;
use std::mem;

use super::super::wraps::wraps;
use crate::outcome::LeftOver;

/// Collects the items that were pulled and did not settle, and tells if items have labels.
///
/// It is separate from the other hooks, because a worker that is dropped needs it: a plan has no bounds about functions of the
/// caller.
pub trait Leftovers<I> {
    /// `true` if these items are given back. The compiler removes code that other runs do not need.
    const GIVES_BACK: bool;

    /// `true` if items have labels.
    const LABELS: bool;

    /// Takes an item that did not settle.
    fn leave(&mut self, left: LeftOver<I>);
}

/// Declares that hooks pass these items on to the hooks below them.
macro_rules! passes_leftovers {
    ($hook:ident, labels: $labels:expr) => {
        impl<I, H: Leftovers<I>, F> Leftovers<I> for $hook<H, F> {
            const GIVES_BACK: bool = H::GIVES_BACK;
            const LABELS: bool = $labels;

            fn leave(&mut self, left: LeftOver<I>) {
                self.below.leave(left);
            }
        }
    };
}
pub(super) use passes_leftovers;

wraps! {
    /// A run with [`give_back`](crate::MapRun::give_back).
    GiveBack<W, F> {
        Call: W::Call,
        Hooks: OnGiveBack<W::Hooks, F, W::Item>,
        Mode: W::Mode,
        Sink: W::Sink,
        Outcomes: W::Outcomes,
        Store: W::Store,
    }
}

/// A run with [`give_back`](crate::MapRun::give_back).
pub struct OnGiveBack<H, F, I> {
    pub(super) below: H,
    function: F,
    left: Vec<LeftOver<I>>,
}

impl<I, H: Leftovers<I>, F> Leftovers<I> for OnGiveBack<H, F, I> {
    const GIVES_BACK: bool = true;
    const LABELS: bool = H::LABELS;

    fn leave(&mut self, left: LeftOver<I>) {
        self.left.push(left);
    }
}

impl<H, F, I> OnGiveBack<H, F, I> {
    pub(crate) fn new(below: H, function: F) -> Self {
        Self { below, function, left: Vec::new() }
    }

    /// Gives the items back, in the order of the input.
    pub(super) fn give_all_back(&mut self)
    where
        F: FnMut(LeftOver<I>),
    {
        let mut left = mem::take(&mut self.left);
        left.sort_unstable_by_key(|left| left.index);
        left.into_iter().for_each(&mut self.function);
    }
}

impl<H, F, I> fmt::Debug for OnGiveBack<H, F, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GiveBack")
    }
}
