//! Runs items on more than one machine: each item is a durable call to a handler in Restate. Needs the feature `restate`.
//!
//! The task, its verdict, its order and its result stay as they are; only the map function changes. Instead of doing the
//! work, it sends the item to [Restate](https://restate.dev), a durable execution engine. The engine runs the item on one of
//! many machines, runs it again if that machine dies, and keeps the outcome. [The guide](crate::guide::past_one_machine)
//! explains when this pays, how to start all parts, and which failures a run survives.
//!
//! This module is the caller's side. It speaks HTTP/1.1 with the engine's ingress and its admin API. It was tested with the
//! versions 1.7.2 and 1.7.12. The workers are programs of your own that use the engine's SDK.
#![doc = include_str!("restate/operation.md")]

mod answer;
mod builder;
mod call;
mod cancel;
mod cancelling;
mod engine;
mod error;
mod handler;
mod health;
mod name;
mod one_line;
mod pending;
mod reply;
mod server;
mod target;
mod tries;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use self::builder::RestateBuilder;
use self::engine::Engine;
pub use self::error::RestateError;
pub use self::handler::Handler;

/// A Restate server, or a cluster of them, that runs the items of a run.
///
/// A clone is another handle to the same server, and shares its connections. Each running call uses one connection, so keep
/// `ulimit -n` above the concurrency of your runs.
///
/// # Examples
///
/// ```no_run
/// use async_map_task::restate::{Restate, RestateError};
/// use async_map_task::AsyncMapTask;
/// use std::time::Duration;
///
/// # async fn example(urls: Vec<String>) -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Restate::builder("http://localhost:8080").admin("http://localhost:9070").build()?;
/// let make = engine.handler::<String>("Thumbnails", "make").run_id("nightly-2026-11-22");
///
/// let task = AsyncMapTask::builder()
///     .name("thumbnails")
///     .concurrency(200)
///     .retries(2)
///     .timeout_per_attempt(Duration::from_secs(60))
///     .build()?;
/// let result = task
///     .over(urls)
///     .map_with_context(|cx, url| make.call(cx, url))
///     .retry_if(RestateError::is_retryable)
///     .await;
/// engine.settled().await; // invocations that a stopped run has left in the engine are cancelled there
/// println!("{}", result?.summary);
/// # Ok(())
/// # }
/// ```
#[doc(alias("distributed", "cluster"))]
#[derive(Debug, Clone)]
pub struct Restate {
    engine: Arc<Engine>,
}

impl Restate {
    /// Returns a builder for the engine with its ingress at this URL, `http://` or `https://`.
    ///
    /// No connection is made before the first call.
    pub fn builder(ingress: impl Into<String>) -> RestateBuilder {
        RestateBuilder::new(ingress.into())
    }

    /// Returns a handler of a service, by its registered names. `T` is the type of its output.
    ///
    /// The names are checked when the handler is called. Each consists of ASCII letters and digits, `_`, `-` and `.`. Only
    /// the handlers of services can be called. Those of virtual objects and workflows have keys, and are not supported.
    pub fn handler<T>(&self, service: &str, handler: &str) -> Handler<T> {
        Handler::new(self, service, handler)
    }

    /// Waits until no call is running, and every invocation that stopped runs have left in the engine is cancelled. Returns
    /// how many invocations could not be cancelled since this handle was built. The log names each of them.
    ///
    /// A dropped call is cancelled by a task of its own, which dies with the runtime. So await this before `main` returns,
    /// and before a run with the same id starts. It waits for the calls of all runs over this engine, including runs that
    /// continue. Without an [`admin`](RestateBuilder::admin), nothing is cancelled and nothing is counted.
    ///
    /// A call may still be on its way when it is dropped, so that the engine does not have it yet. To cancel such a call,
    /// the task enters its invocation in the engine with a delayed start, a minute later. After 5 s, the task removes it. A
    /// call that arrives within these 5 s starts nothing. If the program ends between the two steps, or if the admin API
    /// refuses the second one, the invocation starts.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing: the tasks continue.
    pub async fn settled(&self) -> usize {
        self.engine.calls.wait().await;
        self.engine.uncancelled.load(Ordering::Relaxed)
    }
}
