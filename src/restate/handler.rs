//! A handler that the map function calls.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call::Call;
use super::engine::Engine;
use super::name::RunId;
use super::target::Target;
use super::{Restate, RestateError};
use crate::context::ItemContext;
use crate::error::ConfigError;

/// A handler of a service in Restate, and the id of the run that calls it, if there is one.
///
/// A clone calls the same handler with the same run id.
pub struct Handler<T> {
    engine: Arc<Engine>,
    /// `Err` if a name is not allowed.
    target: Result<Arc<Target>, ConfigError>,
    run_id: RunId,
    output: PhantomData<fn() -> T>,
}

impl<T> Handler<T> {
    pub(super) fn new(engine: &Restate, service: &str, handler: &str) -> Self {
        let engine = Arc::clone(&engine.engine);
        let target = Target::new(&engine, service, handler).map(Arc::new);
        Self { engine, target, run_id: RunId::random(), output: PhantomData }
    }

    /// Sets the id of the run. The [idempotency key](https://docs.restate.dev/services/invocation/http) of each call is
    /// `run_id.index.number`, with the index of the item. The number starts at 1. It is one higher for each failure of the
    /// item that the engine keeps, and for each time that the item was stopped.
    ///
    /// A run with the id of an earlier run gets the outcomes of that run. Items that have ended do not run again; their
    /// outcomes come from the engine. Items that are still running are awaited, and all others are called. So the id stands
    /// for the function and for the whole input, in its order. If either has changed, use another id, because the engine
    /// does not compare the items.
    ///
    /// The engine keeps outcomes for the handler's `idempotency_retention`, a day by default. Two calls in one attempt have
    /// the same key, so they get the same output.
    ///
    /// The id needs at least one character, and allows visible ASCII characters without blanks. By default there is no id,
    /// and each call has a random key, so that no two calls share an outcome. Such a run cannot be continued, and the
    /// handler can be used for any number of runs.
    #[doc(alias("idempotent", "idempotency key", "resume"))]
    #[must_use]
    pub fn run_id(mut self, run_id: impl Into<String>) -> Self {
        self.run_id = RunId::Chosen(run_id.into());
        self
    }

    /// Calls the handler with an item. Use it as the map function, or at the end of one.
    ///
    /// It fits [`map_with_context`](crate::Over::map_with_context), as `|cx, item| make.call(cx, item)`. The item is sent as
    /// JSON, and the output must be JSON, too. While the ingress cannot be reached, the call is sent again under its key,
    /// with growing waits.
    ///
    /// Only the call is kept. If the map function fails after this has returned, the next attempt gets the same output, and
    /// the handler does not run. Without a run id, the handler runs again.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it has ended, the invocation is cancelled in the engine. This happens if its time
    /// limit has passed or its run is stopped. A task of its own cancels the invocation, if there is an
    /// [`admin`](super::RestateBuilder::admin). Await [`settled`](Restate::settled) for the end of that task. With a
    /// [`cancel_grace`](crate::AsyncMapTaskBuilder::cancel_grace), the call itself waits for the end of the cancellation, if
    /// the grace suffices.
    ///
    /// # Errors
    ///
    /// Returns a [`RestateError`] if there is no output.
    ///
    /// # Panics
    ///
    /// Panics outside a Tokio runtime with time and I/O.
    pub fn call<I>(
        &self,
        cx: ItemContext,
        item: I,
    ) -> impl Future<Output = Result<T, RestateError>> + Send + use<I, T>
    where
        I: Serialize,
        T: DeserializeOwned,
    {
        let call = self.prepare(&cx, &item);
        async move { call?.run(&cx).await }
    }

    fn prepare(&self, cx: &ItemContext, item: &impl Serialize) -> Result<Call, RestateError> {
        let target = Arc::clone(self.target.as_ref().map_err(Clone::clone)?);
        let name = self.run_id.name(cx)?;
        let number = name.first_number();
        let key = name.key(number)?;
        let item = serde_json::to_vec(item).map_err(|error| RestateError::Item { source: error.into() })?;
        let (size, limit) = (item.len() as u64, self.engine.message_limit as u64);
        if size > limit {
            return Err(RestateError::TooLarge { what: "item", size, limit });
        }
        Ok(Call { engine: Arc::clone(&self.engine), target, name, number, key, item: item.into() })
    }
}

impl<T> Clone for Handler<T> {
    fn clone(&self) -> Self {
        Self {
            engine: Arc::clone(&self.engine),
            target: self.target.clone(),
            run_id: self.run_id.clone(),
            output: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Handler<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler")
            .field("target", &self.target)
            .field("run_id", &self.run_id)
            .finish_non_exhaustive()
    }
}
