//! The plan of a run: its types, and the options that were set.

use std::fmt;
use std::marker::PhantomData;

use super::mode::{InTask, PollWorkers};
use super::output::outcomes::{Outcomes, Results};
use super::output::sink::{Deliver, NoSink};
use super::persist::durability::{NoStore, Persist};
use super::user::bounds::ResultFuture;
use super::user::call::Call;
use super::user::hooks::{Hooks, NoHooks};
use super::user::leftovers::Leftovers;
use super::user::source::Source;

/// The types of one run. Each option that is set wraps the plan that was there before.
///
/// Use it as a bound, in a function that takes a run of any plan: `fn retrying<R: Plan>(run: MapRun<R>)`. The module
/// [`plan`](crate::plan) has examples.
// It has no bound on the caller's code: DESIGN.md, "Why does each option wrap the plan?".
pub trait Plan {
    /// The type of an item.
    type Item;
    /// The output of an item that succeeds.
    type Output;
    /// The error of the map function.
    type Error;
    #[doc(hidden)]
    type Future;
    #[doc(hidden)]
    type Source;
    #[doc(hidden)]
    type Call;
    #[doc(hidden)]
    type Hooks: Leftovers<Self::Item>;
    /// How the workers are polled.
    #[doc(hidden)]
    type Mode: Mode;
    /// The sink, if the workers can reach it.
    #[doc(hidden)]
    type Sink;
    /// The destination of the outcomes.
    #[doc(hidden)]
    type Outcomes: Outcomes<Self::Output, Self::Error>;
    /// The store of a durable run.
    #[doc(hidden)]
    type Store: Persist<Self::Item, Self::Output, Self::Error>;
}

/// A way to poll workers.
pub trait Mode {
    /// `true` if workers run in parallel with the driver. The compiler removes code that other runs do not need.
    const PARALLEL: bool;

    /// The workers that were opened and have not ended.
    type Workers<W: Plan>: Default;

    /// A sink that the workers can reach, or none if they are parallel: it need not be `Send`.
    type InWorker<D>;

    /// A sink that only the driver can reach, or none.
    type InDriver<D>;

    /// Splits a sink into the part for the workers and the part for the driver.
    fn split_sink<D>(sink: D) -> (Self::InWorker<D>, Self::InDriver<D>);
}

/// The plan of a run without options: a source, a map function, and the types of its items, futures, outputs and errors.
pub struct Mapped<S, C, I, Fut, T, E>(PhantomData<fn() -> (S, C, I, Fut, T, E)>);

impl<S, C, I, Fut, T, E> Plan for Mapped<S, C, I, Fut, T, E> {
    type Item = I;
    type Output = T;
    type Error = E;
    type Future = Fut;
    type Source = S;
    type Call = C;
    type Hooks = NoHooks;
    type Mode = InTask;
    type Sink = NoSink;
    type Outcomes = Results<T, E>;
    type Store = NoStore;
}

impl<S, C, I, Fut, T, E> fmt::Debug for Mapped<S, C, I, Fut, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mapped")
    }
}

/// A [`Plan`] with types that fit together, so that attempts can be made.
pub trait Work:
    Plan<
        Source: Source<Item = Self::Item>,
        Call: Call<Self::Item, Output = Self::Output, Error = Self::Error, Future = Self::Future>,
        Hooks: Hooks<Self::Item, Self::Error>,
        Future: ResultFuture<Ok = <Self::Call as Call<Self::Item>>::Answer, Error = Self::Error>,
        Sink: Deliver<Self::Output, Self::Error>,
    >
{
}

impl<W> Work for W where
    W: Plan<
            Source: Source<Item = W::Item>,
            Call: Call<W::Item, Output = W::Output, Error = W::Error, Future = W::Future>,
            Hooks: Hooks<W::Item, W::Error>,
            Future: ResultFuture<Ok = <W::Call as Call<W::Item>>::Answer, Error = W::Error>,
            Sink: Deliver<W::Output, W::Error>,
        >
{
}

/// [`Work`] with workers that can be polled, so that a run can be driven.
pub trait Drive: Sized + Work + Plan<Mode: PollWorkers<Self>> {}

impl<W: Work + Plan<Mode: PollWorkers<W>>> Drive for W {}
