//! The forms of the map function.

use std::sync::Arc;

use tracing::Span;

use super::super::in_context::{current_dispatch, in_context};
use super::super::worker::blocking::BlockingAttempt;
use super::bounds::{CloneItem, ResultFuture};
use crate::context::ItemContext;
use crate::limiter::SharedPermits;

/// A function that makes one attempt at an item, or at several.
pub trait Call<I> {
    /// The output of an attempt that succeeds.
    type Output;
    /// The error of an attempt that fails.
    type Error;
    /// What an attempt returns: the output or, for a batch, a result for each of its items.
    type Answer;
    /// One attempt.
    type Future: ResultFuture<Ok = Self::Answer, Error = Self::Error>;

    /// `true` if an item can be tried only once, because it cannot be cloned.
    const ONE_ATTEMPT: bool = false;

    /// `true` if the function takes a context.
    const TAKES_CONTEXT: bool = false;

    /// `true` if an attempt that was given up can still run; see [`still_running`](Self::still_running).
    const LINGERS: bool = false;

    /// `true` if one attempt is a call for several items.
    const BATCHES: bool = false;

    /// Starts an attempt. The context is created only if the function takes one. The permits of the shared limits are left in
    /// `permits`, unless the attempt may outlive its run.
    fn call(
        &self,
        context: impl FnOnce() -> ItemContext,
        item: I,
        permits: &mut SharedPermits,
    ) -> Self::Future;

    /// As [`call`](Self::call), for a batch: the first item and the others. A function for one item has no others.
    #[inline(always)]
    fn call_batch(
        &self,
        context: impl FnOnce() -> ItemContext,
        first: I,
        _others: Vec<I>,
        permits: &mut SharedPermits,
    ) -> Self::Future {
        self.call(context, first, permits)
    }

    /// Clones an item for a later attempt. Returns `None` if it cannot be cloned.
    fn clone_item(&self, item: &I) -> Option<I>;

    /// Returns the output of an attempt at one item. A call for a batch has none.
    fn output(answer: Self::Answer) -> Option<Self::Output>;

    /// Returns the results of a call for a batch. An attempt at one item has none.
    fn results(_answer: Self::Answer) -> Vec<Result<Self::Output, Self::Error>> {
        Vec::new()
    }

    /// Gives up an attempt. Returns `true` if it still runs, so that its permits stay in use until it ends.
    fn still_running(_attempt: &Self::Future) -> bool {
        false
    }

    /// Clones the function for a parallel worker. Returns `None` if workers cannot share it.
    fn clone_fn(&self) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }
}

/// `map`: the function gets the item.
#[derive(Debug)]
pub struct Plain<F>(pub(crate) F);

impl<I: CloneItem, F, Fut, T, E> Call<I> for Plain<F>
where
    F: Fn(I) -> Fut,
    Fut: ResultFuture<Ok = T, Error = E>,
{
    type Output = T;
    type Error = E;
    type Answer = T;
    type Future = Fut;

    #[inline]
    fn call(&self, _context: impl FnOnce() -> ItemContext, item: I, _permits: &mut SharedPermits) -> Fut {
        (self.0)(item)
    }

    #[inline]
    fn clone_item(&self, item: &I) -> Option<I> {
        Some(item.clone())
    }

    #[inline(always)]
    fn output(answer: T) -> Option<T> {
        Some(answer)
    }
}

/// `map_once`: as `map`, for items that cannot be cloned.
#[derive(Debug)]
pub struct Once<F>(pub(crate) F);

impl<I, F, Fut, T, E> Call<I> for Once<F>
where
    F: Fn(I) -> Fut,
    Fut: ResultFuture<Ok = T, Error = E>,
{
    type Output = T;
    type Error = E;
    type Answer = T;
    type Future = Fut;

    const ONE_ATTEMPT: bool = true;

    #[inline]
    fn call(&self, _context: impl FnOnce() -> ItemContext, item: I, _permits: &mut SharedPermits) -> Fut {
        (self.0)(item)
    }

    fn clone_item(&self, _item: &I) -> Option<I> {
        None
    }

    #[inline(always)]
    fn output(answer: T) -> Option<T> {
        Some(answer)
    }
}

/// `map_with_context`: the function gets the context and the item.
#[derive(Debug)]
pub struct WithContext<F>(pub(crate) F);

impl<I: CloneItem, F, Fut, T, E> Call<I> for WithContext<F>
where
    F: Fn(ItemContext, I) -> Fut,
    Fut: ResultFuture<Ok = T, Error = E>,
{
    type Output = T;
    type Error = E;
    type Answer = T;
    type Future = Fut;

    const TAKES_CONTEXT: bool = true;

    fn call(&self, context: impl FnOnce() -> ItemContext, item: I, _permits: &mut SharedPermits) -> Fut {
        (self.0)(context(), item)
    }

    fn clone_item(&self, item: &I) -> Option<I> {
        Some(item.clone())
    }

    #[inline(always)]
    fn output(answer: T) -> Option<T> {
        Some(answer)
    }
}

/// `map_blocking`: the function runs on Tokio's blocking pool.
#[derive(Debug)]
pub struct Blocking<F>(pub(crate) Arc<F>);

impl<I, F, T, E> Call<I> for Blocking<F>
where
    I: CloneItem + Send + 'static,
    F: Fn(I) -> Result<T, E> + Send + Sync + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    type Output = T;
    type Error = E;
    type Answer = T;
    type Future = BlockingAttempt<T, E>;

    const LINGERS: bool = true;

    fn call(
        &self,
        _context: impl FnOnce() -> ItemContext,
        item: I,
        permits: &mut SharedPermits,
    ) -> BlockingAttempt<T, E> {
        let function = Arc::clone(&self.0);
        begin_blocking(permits, move || function(item))
    }

    fn clone_item(&self, item: &I) -> Option<I> {
        Some(item.clone())
    }

    #[inline(always)]
    fn output(answer: T) -> Option<T> {
        Some(answer)
    }

    fn still_running(attempt: &BlockingAttempt<T, E>) -> bool {
        !attempt.give_up()
    }
}

/// `map_blocking_with_context`: as `map_blocking`, with the context.
#[derive(Debug)]
pub struct BlockingWithContext<F>(pub(crate) Arc<F>);

impl<I, F, T, E> Call<I> for BlockingWithContext<F>
where
    I: CloneItem + Send + 'static,
    F: Fn(ItemContext, I) -> Result<T, E> + Send + Sync + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    type Output = T;
    type Error = E;
    type Answer = T;
    type Future = BlockingAttempt<T, E>;

    const TAKES_CONTEXT: bool = true;
    const LINGERS: bool = true;

    fn call(
        &self,
        context: impl FnOnce() -> ItemContext,
        item: I,
        permits: &mut SharedPermits,
    ) -> BlockingAttempt<T, E> {
        let (function, context) = (Arc::clone(&self.0), context());
        begin_blocking(permits, move || function(context, item))
    }

    fn clone_item(&self, item: &I) -> Option<I> {
        Some(item.clone())
    }

    #[inline(always)]
    fn output(answer: T) -> Option<T> {
        Some(answer)
    }

    fn still_running(attempt: &BlockingAttempt<T, E>) -> bool {
        !attempt.give_up()
    }
}

/// Starts a function on the blocking pool, in the current span.
fn begin_blocking<T: Send + 'static, E: Send + 'static>(
    permits: &mut SharedPermits,
    function: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> BlockingAttempt<T, E> {
    let (span, dispatch) = (Span::current(), current_dispatch());
    // The limit counts functions that still run, so the permits stay with the function.
    let mut permits = permits.take();
    BlockingAttempt::begin(move || {
        // They are returned when the function returns or panics, which ends the attempt.
        permits.end(false);
        let _permits = permits;
        in_context(dispatch.as_ref(), || span.in_scope(function))
    })
}

/// A function that workers on several threads call in parallel.
#[derive(Debug)]
pub struct Shared<C>(pub(crate) Arc<C>);

impl<I, C: Call<I>> Call<I> for Shared<C> {
    type Output = C::Output;
    type Error = C::Error;
    type Answer = C::Answer;
    type Future = C::Future;

    const ONE_ATTEMPT: bool = C::ONE_ATTEMPT;
    const TAKES_CONTEXT: bool = C::TAKES_CONTEXT;
    const LINGERS: bool = C::LINGERS;
    const BATCHES: bool = C::BATCHES;

    fn call(&self, context: impl FnOnce() -> ItemContext, item: I, permits: &mut SharedPermits) -> C::Future {
        self.0.call(context, item, permits)
    }

    fn call_batch(
        &self,
        context: impl FnOnce() -> ItemContext,
        first: I,
        others: Vec<I>,
        permits: &mut SharedPermits,
    ) -> C::Future {
        self.0.call_batch(context, first, others, permits)
    }

    fn clone_item(&self, item: &I) -> Option<I> {
        self.0.clone_item(item)
    }

    #[inline(always)]
    fn output(answer: C::Answer) -> Option<C::Output> {
        C::output(answer)
    }

    fn results(answer: C::Answer) -> Vec<Result<C::Output, C::Error>> {
        C::results(answer)
    }

    fn still_running(attempt: &C::Future) -> bool {
        C::still_running(attempt)
    }

    fn clone_fn(&self) -> Option<Self> {
        Some(Self(Arc::clone(&self.0)))
    }
}
