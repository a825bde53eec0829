//! The source of the items.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;

use crate::error::BoxError;

/// A list or a stream of items, pulled one at a time.
pub trait Source {
    /// The type of its items.
    type Item;

    /// Returns the next item, or `None` at the end. It is not called again after the end or an error.
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Self::Item, BoxError>>>;

    /// Returns the bounds of the number of items, as [`Iterator::size_hint`] does.
    fn size_hint(&self) -> (usize, Option<usize>);

    /// Returns the number of items, if the size hint is exact.
    fn promised_total(&self) -> Option<usize> {
        match self.size_hint() {
            (least, Some(most)) if least == most => Some(most),
            _ => None,
        }
    }
}

/// A source that is an iterator.
#[derive(Debug)]
pub struct FromIter<I>(pub(crate) I);

impl<I: Iterator> Source for FromIter<I> {
    type Item = I::Item;

    #[inline]
    fn poll_pull(&mut self, _cx: &mut Context<'_>) -> Poll<Option<Result<I::Item, BoxError>>> {
        Poll::Ready(self.0.next().map(Ok))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

/// A source of results: an error ends it.
#[derive(Debug)]
pub struct Fallible<S>(pub(crate) S);

impl<S, I, X> Source for Fallible<S>
where
    S: Source<Item = Result<I, X>>,
    X: Into<BoxError>,
{
    type Item = I;

    #[inline]
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<I, BoxError>>> {
        self.0.poll_pull(cx).map(|item| item.map(|item| item?.map_err(Into::into)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

/// A source with a total that the caller knows.
#[derive(Debug)]
pub struct WithTotal<S> {
    pub(crate) source: S,
    pub(crate) total: usize,
}

impl<S: Source> Source for WithTotal<S> {
    type Item = S::Item;

    #[inline]
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<S::Item, BoxError>>> {
        self.source.poll_pull(cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.total, Some(self.total))
    }
}

/// A source that is a stream. It is boxed, so that it need not be `Unpin`.
#[derive(Debug)]
pub struct FromStream<S>(pub(crate) Pin<Box<S>>);

impl<S: Stream> Source for FromStream<S> {
    type Item = S::Item;

    #[inline]
    fn poll_pull(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<S::Item, BoxError>>> {
        self.0.as_mut().poll_next(cx).map(|item| item.map(Ok))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}
