//! A handler, as the map function calls it.

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
    /// Or why there is no such name.
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

    /// The name of the run: with the index of the item and a number it is the [idempotency
    /// key](https://docs.restate.dev/services/invocation/http) of each call, `run_id.index.number`. The number is 1, and one more
    /// for each failure of the item that the engine keeps, and for each time that it was stopped.
    ///
    /// A run with an id that was there before has the outcomes of that run: what has ended comes back from the engine
    /// and does not run, what still runs is waited for, the rest is called. So the id stands for the function and for
    /// all of the input, in its order; take another one where either has changed, because the engine does not compare
    /// the items. It keeps outcomes for the handler's `idempotency_retention`, a day by default. Two calls of one attempt have
    /// the same key, and so the same output.
    ///
    /// Visible characters of ASCII are allowed, without blanks, and at least one. Without this each call has a random key, and
    /// shares its outcome with no other: a run cannot be taken up again, and a handler serves any number of runs.
    #[must_use]
    pub fn run_id(mut self, run_id: impl Into<String>) -> Self {
        self.run_id = RunId::Chosen(run_id.into());
        self
    }

    /// Calls the handler with an item: this is the map function, or the end of one.
    ///
    /// Made for [`map_with_context`](crate::Over::map_with_context), as `|cx, item| make.call(cx, item)`. The item is
    /// sent as JSON, and the output must be JSON, too. While the ingress cannot be reached, the call is sent again under
    /// its key, with growing waits.
    ///
    /// # Cancel safety
    ///
    /// Where this is dropped before it has ended, as it is when its time runs out or its run is stopped, the invocation
    /// is cancelled in the engine by a task of its own, if there is an [`admin`](super::RestateBuilder::admin); await
    /// [`settled`](Restate::settled) for its end. With a [`cancel_grace`](crate::AsyncMapTaskBuilder::cancel_grace) the
    /// call does so before it ends, if it is in time.
    ///
    /// # Errors
    ///
    /// See [`RestateError`].
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with time and I/O.
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
        let number = name.first();
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
