//! `map_batches`: the map function gets several items at once.

use super::bounds::{CloneItem, ResultFuture};
use super::call::{Call, Shared};
use crate::context::ItemContext;
use crate::limiter::SharedPermits;

/// `map_batches`: the function gets the items of a batch.
#[derive(Debug)]
pub struct Batches<F>(pub(crate) F);

/// `map_batches_with_context`: the function gets the context of the first item, and the items of a batch.
#[derive(Debug)]
pub struct BatchesWithContext<F>(pub(crate) F);

/// A map function for batches. Its run has the options of batches. Implemented for the functions of
/// [`map_batches`](crate::Over::map_batches) and [`map_batches_with_context`](crate::Over::map_batches_with_context).
pub trait MapsBatches {}

impl<F> MapsBatches for Batches<F> {}
impl<F> MapsBatches for BatchesWithContext<F> {}
impl<C: MapsBatches> MapsBatches for Shared<C> {}

impl<I: CloneItem, F, Fut, T, E> Call<I> for Batches<F>
where
    F: Fn(Vec<I>) -> Fut,
    Fut: ResultFuture<Ok = Vec<Result<T, E>>, Error = E>,
{
    type Output = T;
    type Error = E;
    type Answer = Vec<Result<T, E>>;
    type Future = Fut;

    const BATCHES: bool = true;

    fn call(&self, _context: impl FnOnce() -> ItemContext, item: I, _permits: &mut SharedPermits) -> Fut {
        (self.0)(vec![item])
    }

    fn call_batch(
        &self,
        _context: impl FnOnce() -> ItemContext,
        first: I,
        others: Vec<I>,
        _permits: &mut SharedPermits,
    ) -> Fut {
        (self.0)(joined(first, others))
    }

    fn clone_item(&self, item: &I) -> Option<I> {
        Some(item.clone())
    }

    fn output(_answer: Vec<Result<T, E>>) -> Option<T> {
        None
    }

    fn results(answer: Vec<Result<T, E>>) -> Vec<Result<T, E>> {
        answer
    }
}

impl<I: CloneItem, F, Fut, T, E> Call<I> for BatchesWithContext<F>
where
    F: Fn(ItemContext, Vec<I>) -> Fut,
    Fut: ResultFuture<Ok = Vec<Result<T, E>>, Error = E>,
{
    type Output = T;
    type Error = E;
    type Answer = Vec<Result<T, E>>;
    type Future = Fut;

    const BATCHES: bool = true;
    const TAKES_CONTEXT: bool = true;

    fn call(&self, context: impl FnOnce() -> ItemContext, item: I, _permits: &mut SharedPermits) -> Fut {
        (self.0)(context(), vec![item])
    }

    fn call_batch(
        &self,
        context: impl FnOnce() -> ItemContext,
        first: I,
        others: Vec<I>,
        _permits: &mut SharedPermits,
    ) -> Fut {
        (self.0)(context(), joined(first, others))
    }

    fn clone_item(&self, item: &I) -> Option<I> {
        Some(item.clone())
    }

    fn output(_answer: Vec<Result<T, E>>) -> Option<T> {
        None
    }

    fn results(answer: Vec<Result<T, E>>) -> Vec<Result<T, E>> {
        answer
    }
}

fn joined<I>(first: I, others: Vec<I>) -> Vec<I> {
    let mut items = Vec::with_capacity(others.len() + 1);
    items.push(first);
    items.extend(others);
    items
}
