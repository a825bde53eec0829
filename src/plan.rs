//! The types of a run, for functions that take or return a run.
//!
//! A run is a [`MapRun<R>`](crate::MapRun), and `R` is its [`Plan`]: the types of its items, outputs, errors and options.
//! Each option wraps the plan. For example, [`retry_if`](crate::MapRun::retry_if) turns a `MapRun<R>` into a
//! `MapRun<RetryIf<R, F>>`, for a function of type `F`. Most programs never name these types.
//!
//! A function can take a run of any plan, set options, and return it. The return type contains the types of the options. A
//! closure that captures nothing can be converted to a function pointer, which has a type that can be named:
//!
//! ```
//! use async_map_task::plan::{Plan, RetryIf};
//! use async_map_task::{AsyncMapTask, MapRun};
//! use std::io;
//!
//! /// Retries only errors that can go away.
//! fn patient<R: Plan<Error = io::Error>>(run: MapRun<R>) -> MapRun<RetryIf<R, fn(&io::Error) -> bool>> {
//!     run.retry_if(|error| error.kind() == io::ErrorKind::TimedOut)
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let task = AsyncMapTask::builder().retries(3).build()?;
//! let run = task.over(["a", "b"]).map(|name| async move { Ok::<_, io::Error>(name.len()) });
//! assert_eq!(patient(run).ordered().await?.results, [Some(1), Some(1)]);
//! # Ok(())
//! # }
//! ```
//!
//! [`ParallelPlan`], [`SpawnPlan`] and [`StreamPlan`] are the plans of runs that can use several cores, continue in the
//! background, and be streamed. A function that does so with a run of its caller needs no other bound:
//!
//! ```
//! use async_map_task::plan::SpawnPlan;
//! use async_map_task::{AsyncMapTask, MapHandle, MapRun};
//!
//! /// Starts a run, and reports when it has ended.
//! fn start<R: SpawnPlan>(run: MapRun<R>) -> MapHandle<R::Output, R::Error> {
//!     let handle = run.spawn();
//!     let mut progress = handle.watch();
//!     tokio::spawn(async move {
//!         while progress.changed().await.is_ok() {}
//!         println!("{} items succeeded", progress.borrow().successes);
//!     });
//!     handle
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let run = AsyncMapTask::default().run([1, 2, 3], |n| async move { Ok::<_, String>(n) });
//! assert_eq!(start(run).await?.successes(), 3);
//! # Ok(())
//! # }
//! ```
//!
//! The type of a closure cannot be named. To return a run with options that are closures, return it as the future of its
//! result. Here `use<>` states that the future does not borrow from `task`:
//!
//! ```
//! use async_map_task::{AsyncMapTask, MapTaskError, MapTaskResult};
//! use std::num::ParseIntError;
//!
//! fn parse(
//!     task: &AsyncMapTask,
//!     texts: Vec<String>,
//! ) -> impl Future<Output = Result<MapTaskResult<u32, ParseIntError>, MapTaskError<u32, ParseIntError>>> + use<> {
//!     task.over(texts).map(|text| async move { text.parse() }).retry_if(|_| false)
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let numbers = parse(&AsyncMapTask::default(), vec!["1".to_owned(), "2".to_owned()]).await?;
//! assert_eq!(numbers.into_successful_results(), [1, 2]);
//! # Ok(())
//! # }
//! ```
//!
//! [`ItemList`], [`CloneItem`], [`ResultFuture`] and [`Transferable`] are bounds on types of the caller. Each is implemented
//! for all types that meet an ordinary bound, such as `Clone`. They exist for their error messages. So a generic function
//! needs only the ordinary bound.

#[cfg(feature = "store")]
pub use crate::engine::persist::durability::Durable;
pub use crate::engine::persist::durability::Redo;
pub use crate::engine::plan::{Mapped, Plan};
pub use crate::engine::user::batches::MapsBatches;
pub use crate::engine::user::bounds::{CloneItem, ItemList, ResultFuture, Transferable};
pub use crate::engine::user::hooks::{
    ErrorText, HoldBack, Label, LimitPer, Observe, Overload, PerKey, RetryAfter, RetryIf, Weight,
};
pub use crate::engine::user::leftovers::GiveBack;
pub use crate::for_each::Delivering;
pub use crate::handle::SpawnPlan;
pub use crate::run::options::{Parallel, ParallelPlan};
pub use crate::stream::{StreamPlan, Streaming};
