//! The bounds on the caller's types that have an error message of their own.
//!
//! Each trait is implemented for all types that meet an ordinary bound. `do_not_recommend` makes the compiler report the
//! trait, with its message, and not the ordinary bound.

/// An item that can be cloned, so that it can be tried again. Implemented for every type that is [`Clone`].
#[diagnostic::on_unimplemented(
    message = "`map` needs items that are `Clone`, and `{Self}` is not",
    label = "a retry needs a clone of this item",
    note = "use `map_once` for items that are not `Clone`: each item then has one attempt; for `map_batches`, put them into an `Arc`",
    note = "if the items are `Result`s of their source, such as the lines of a reader, use `over_try` or `over_try_stream`"
)]
// The parameter is always `Self`. Without it, the compiler suggests to borrow the item, because a reference is `Clone`.
pub trait CloneItem<I = Self>: Clone {}

#[diagnostic::do_not_recommend]
impl<I: Clone> CloneItem<I> for I {}

/// A future of a `Result`. Implemented for every [`Future`] with the output `Result<T, E>`.
#[diagnostic::on_unimplemented(
    message = "the map function does not return a `Result`",
    label = "the future of this function has another output",
    note = "return `Ok(value)` for an item that succeeds; if no item can fail, `Ok::<_, Infallible>(value)`",
    note = "a block that ends with `;` returns `()`: end it with `Ok(())`",
    note = "the function of `map_batches` returns a result for each item: `Result<Vec<Result<T, E>>, E>`"
)]
pub trait ResultFuture: Future<Output = Result<Self::Ok, Self::Error>> {
    /// The output of an attempt that succeeds.
    type Ok;
    /// The error of an attempt that fails.
    type Error;
}

#[diagnostic::do_not_recommend]
impl<F: Future<Output = Result<T, E>>, T, E> ResultFuture for F {
    type Ok = T;
    type Error = E;
}

/// A list of items, or any other iterator. Implemented for every type that is [`IntoIterator`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a list of items",
    label = "not an iterator",
    note = "use `over_stream` or `over_try_stream` for the items of a stream"
)]
pub trait ItemList {
    /// The type of an item.
    type Item;
    /// The iterator over the items.
    type Iter: Iterator<Item = Self::Item>;

    #[doc(hidden)]
    fn into_items(self) -> Self::Iter;
}

// The iterator is a parameter. With `L::IntoIter` instead, the compiler reports that bound, without the message.
#[diagnostic::do_not_recommend]
impl<L, I, N> ItemList for L
where
    L: IntoIterator<Item = I, IntoIter = N>,
    N: Iterator<Item = I>,
{
    type Item = I;
    type Iter = N;

    fn into_items(self) -> N {
        self.into_iter()
    }
}

/// A part of a run that another thread can own. Implemented for every type that is `Send + 'static`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be used in another task: it is not `Send + 'static`",
    label = "every part of this run must be `Send + 'static`",
    note = "`parallel`, `spawn` and `stream` put the run into tasks of their own, which may be on any thread",
    note = "use `Arc` instead of `Rc`, and `Mutex` or an atomic instead of `RefCell` or `Cell`",
    note = "or stay in this task: await the run, or use `for_each`, without `parallel`"
)]
pub trait Transferable: Send + 'static {}

#[diagnostic::do_not_recommend]
impl<P: Send + 'static> Transferable for P {}
