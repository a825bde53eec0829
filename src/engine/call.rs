//! The map function in its forms.

use crate::context::ItemContext;

/// A function that makes one attempt at an item.
pub trait Call<I> {
    /// What an attempt gives when it succeeds.
    type Output;
    /// What it gives when it fails.
    type Error;
    /// One attempt.
    type Future: Future<Output = Result<Self::Output, Self::Error>>;

    /// Whether an item can be tried once only, because it cannot be cloned.
    const ONE_ATTEMPT: bool = false;

    /// Begins an attempt. The context is made only where the function takes one.
    fn call(&self, context: impl FnOnce() -> ItemContext, item: I) -> Self::Future;

    /// The item once more, for a later attempt.
    fn again(&self, item: &I) -> Option<I>;
}

/// `map`: the function gets the item.
#[derive(Debug)]
pub struct Plain<F>(pub(crate) F);

impl<I: Clone, F, Fut, T, E> Call<I> for Plain<F>
where
    F: Fn(I) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    type Output = T;
    type Error = E;
    type Future = Fut;

    #[inline]
    fn call(&self, _context: impl FnOnce() -> ItemContext, item: I) -> Fut {
        (self.0)(item)
    }

    #[inline]
    fn again(&self, item: &I) -> Option<I> {
        Some(item.clone())
    }
}

/// `map_once`: as `map`, for items that cannot be cloned.
#[derive(Debug)]
pub struct Once<F>(pub(crate) F);

impl<I, F, Fut, T, E> Call<I> for Once<F>
where
    F: Fn(I) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    type Output = T;
    type Error = E;
    type Future = Fut;

    const ONE_ATTEMPT: bool = true;

    #[inline]
    fn call(&self, _context: impl FnOnce() -> ItemContext, item: I) -> Fut {
        (self.0)(item)
    }

    fn again(&self, _item: &I) -> Option<I> {
        None
    }
}

/// `map_with_context`: the function gets the context and the item.
#[derive(Debug)]
pub struct WithContext<F>(pub(crate) F);

impl<I: Clone, F, Fut, T, E> Call<I> for WithContext<F>
where
    F: Fn(ItemContext, I) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    type Output = T;
    type Error = E;
    type Future = Fut;

    fn call(&self, context: impl FnOnce() -> ItemContext, item: I) -> Fut {
        (self.0)(context(), item)
    }

    fn again(&self, item: &I) -> Option<I> {
        Some(item.clone())
    }
}
