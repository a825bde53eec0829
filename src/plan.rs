//! The types of runs, for functions that take a run.
//!
//! A run is a [`MapRun`](crate::MapRun) of a [`Plan`]. Each option wraps the plan: a run with
//! [`retry_if`](crate::MapRun::retry_if) is a `MapRun<RetryIf<R, F>>`, for the plan `R` that it had before. Most programs
//! never name these types.
//!
//! A function can take a run of any plan, set options, and return it. Options that are function pointers have types that can
//! be named:
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
//! To return a run with options that are closures, return the future of its result:
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

#[cfg(feature = "store")]
pub use crate::engine::persist::durability::Durable;
pub use crate::engine::plan::{Mapped, Plan};
pub use crate::engine::user::hooks::{Observe, RetryAfter, RetryIf, Weight};
pub use crate::for_each::Delivering;
pub use crate::run::Parallel;
pub use crate::stream::Streaming;
