//! The types of a run.

use std::marker::PhantomData;

use super::call::Call;
use super::hooks::Hooks;
use super::mode::PollWorkers;
use super::sink::{Deliver, NoSink};
use super::source::Source;

/// The types of one run, without any bound. So the compiler can resolve them, and decide if a run is `Send`, without having
/// to prove anything about a closure.
///
/// This matters if items hold references. Inside a spawned future the compiler forgets which lifetime is which. A proof that
/// a closure takes an item would then have to hold for all lifetimes (<https://github.com/rust-lang/rust/issues/102211>).
pub trait Types {
    type Item;
    type Output;
    type Error;
    type Future;
    type Source;
    type Call;
    type Hooks;
    type Mode: Mode;
    /// The sink, if the workers can reach it.
    type Sink;
    /// The same types, with another sink.
    type With<K>: Types<
            Item = Self::Item,
            Output = Self::Output,
            Error = Self::Error,
            Future = Self::Future,
            Source = Self::Source,
            Call = Self::Call,
            Hooks = Self::Hooks,
            Mode = Self::Mode,
            Sink = K,
        >;
}

/// A way to poll workers.
pub trait Mode {
    /// `true` if workers run in parallel with the driver. The compiler removes code that other runs do not need.
    const PARALLEL: bool;

    /// The workers that were opened and have not ended.
    type Workers<W: Types>: Default;

    /// A sink that the workers can reach, or none if they are parallel: it need not be `Send`.
    type InWorker<D>;

    /// A sink that only the driver can reach, or none.
    type InDriver<D>;

    /// Splits a sink into the part for the workers and the part for the driver.
    fn split_sink<D>(sink: D) -> (Self::InWorker<D>, Self::InDriver<D>);
}

/// The [`Types`] of a run, one by one.
#[derive(Debug)]
pub struct Parts<S, C, H, I, T, E, Fut, M, K = NoSink>(PhantomData<fn() -> (S, C, H, I, T, E, Fut, M, K)>);

impl<S, C, H, I, T, E, Fut, M: Mode, K> Types for Parts<S, C, H, I, T, E, Fut, M, K> {
    type Item = I;
    type Output = T;
    type Error = E;
    type Future = Fut;
    type Source = S;
    type Call = C;
    type Hooks = H;
    type Mode = M;
    type Sink = K;
    type With<L> = Parts<S, C, H, I, T, E, Fut, M, L>;
}

/// [`Types`] that fit together, so that attempts can be made.
pub trait Work:
    Types<
        Source: Source<Item = Self::Item>,
        Call: Call<Self::Item, Output = Self::Output, Error = Self::Error, Future = Self::Future>,
        Hooks: Hooks<Self::Item, Self::Error>,
        Future: Future<Output = Result<Self::Output, Self::Error>>,
        Sink: Deliver<Self::Output, Self::Error>,
    >
{
}

impl<W> Work for W where
    W: Types<
            Source: Source<Item = W::Item>,
            Call: Call<W::Item, Output = W::Output, Error = W::Error, Future = W::Future>,
            Hooks: Hooks<W::Item, W::Error>,
            Future: Future<Output = Result<W::Output, W::Error>>,
            Sink: Deliver<W::Output, W::Error>,
        >
{
}

/// [`Work`] with workers that can be polled, so that a run can be driven.
pub trait Drive: Sized + Work + Types<Mode: PollWorkers<Self>> {}

impl<W: Work + Types<Mode: PollWorkers<W>>> Drive for W {}
