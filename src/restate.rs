//! The items of a run on more than one machine: each is a durable call to a handler in Restate.
//!
//! The task, its verdict, its order and its result stay as they are; only the map function changes. Instead of doing the
//! work, it hands the item to [Restate](https://restate.dev), a durable execution engine, which has it run on any of
//! many machines, sees to it that it is run again where a machine dies, and keeps the outcome. [The
//! guide](crate::guide::past_one_machine) says when this pays, how to start it all, and what survives what.
//!
//! This is the side of the caller, and speaks HTTP/1.1 with the engine's ingress and its admin API. It was tried with the versions
//! 1.7.2 and 1.7.12.
//! The workers are programs of your own with the engine's own SDK.

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

/// A Restate server, or a cluster of them: where the items of a run go.
///
/// A clone is another handle to the same, and shares its connections: one for each call that is under way, so keep
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
/// engine.settled().await; // what a stopped run has left in the engine is cancelled there
/// println!("{}", result?.summary);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Restate {
    engine: Arc<Engine>,
}

impl Restate {
    /// Begins to describe the engine whose ingress is at this URL, `http://` or `https://`.
    ///
    /// Nothing is connected before the first call.
    pub fn builder(ingress: impl Into<String>) -> RestateBuilder {
        RestateBuilder::new(ingress.into())
    }

    /// A handler of a service, by the names that it is registered with, and the type of its output.
    ///
    /// The names are checked when it is called: each consists of letters and digits of ASCII, `_`, `-` and `.`. Only a
    /// service's handlers can be called, not those of virtual objects and workflows, which have keys.
    pub fn handler<T>(&self, service: &str, handler: &str) -> Handler<T> {
        Handler::new(self, service, handler)
    }

    /// Waits until no call is under way, and what stopped runs have left in the engine is cancelled there. Says how many
    /// invocations could not be cancelled, since the engine was built; the log names each.
    ///
    /// A call that is dropped is cancelled by a task of its own, which dies with the runtime. So await this before
    /// `main` returns, and before a run of the same id begins. It waits for the calls of all runs over this engine, also
    /// of those that go on. Without an [`admin`](RestateBuilder::admin) nothing is cancelled, and nothing counted.
    ///
    /// A call that the engine does not have yet may still be on its way. Cancelling enters its invocation there, to begin a
    /// minute later, and takes it out again after 5 s, in which a call that comes late begins nothing. A program that ends
    /// between the two, or that the admin API refuses, leaves it to begin.
    ///
    /// # Cancel safety
    ///
    /// Dropping it changes nothing: the tasks go on.
    pub async fn settled(&self) -> usize {
        self.engine.calls.wait().await;
        self.engine.uncancelled.load(Ordering::Relaxed)
    }
}
