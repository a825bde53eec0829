//! Plans that wrap another plan.

/// Declares a plan that wraps another one and differs from it in some of its types.
macro_rules! wraps {
    ($(#[$doc:meta])* $name:ident<$w:ident $(, $p:ident)*> {
        Call: $call:ty, Hooks: $hooks:ty, Mode: $mode:ty, Sink: $sink:ty, Outcomes: $outcomes:ty, Store: $store:ty $(,)?
    }) => {
        $(#[$doc])*
        pub struct $name<$w $(, $p)*>(std::marker::PhantomData<fn() -> ($w, $($p),*)>);

        impl<$w: $crate::engine::Plan $(, $p)*> $crate::engine::Plan for $name<$w $(, $p)*> {
            type Item = $w::Item;
            type Output = $w::Output;
            type Error = $w::Error;
            type Future = $w::Future;
            type Source = $w::Source;
            type Call = $call;
            type Hooks = $hooks;
            type Mode = $mode;
            type Sink = $sink;
            type Outcomes = $outcomes;
            type Store = $store;
        }

        impl<$w $(, $p)*> std::fmt::Debug for $name<$w $(, $p)*> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    };
}
pub(crate) use wraps;
