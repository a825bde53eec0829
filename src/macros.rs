//! What the code that `#[map_task]` generates needs, beside the public types.

use crate::builder::AsyncMapTaskBuilder;
use crate::engine::user::source::FromIter;
use crate::error::MapTaskError;
use crate::over::Over;
use crate::result::MapTaskResult;
use crate::task::AsyncMapTask;

/// The return type of `over`. An alias, because the messages of the compiler would name a type that is exported here by this path.
pub type OverItems<I> = Over<FromIter<I>>;

/// Builds a task from settings that the macro has checked.
///
/// # Panics
///
/// Panics if a setting is invalid, which is a bug of the macro.
pub fn built(builder: AsyncMapTaskBuilder) -> AsyncMapTask {
    match builder.build() {
        Ok(task) => task,
        Err(error) => unreachable!("`#[map_task]` accepted an invalid setting: {error}"),
    }
}

/// The return type of the function of a task. Implemented for every [`Result`].
#[diagnostic::on_unimplemented(
    message = "the function of a task must return a `Result`, not `{Self}`",
    label = "this is not a `Result`",
    note = "return `Ok(value)` for an item that succeeds; if no item can fail, the type is `Result<T, Infallible>`"
)]
pub trait MapOutput {
    /// The result of a run of the function.
    type Result;
}

impl<T, E> MapOutput for Result<T, E> {
    type Result = Result<MapTaskResult<T, E>, MapTaskError<T, E>>;
}

/// The generated code has the edition of the macro, also in a crate of an older one.
///
/// ```edition2021
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// #[async_map_task::map_task]
/// async fn borrowed<T: Copy>(item: &T) -> Result<&T, std::convert::Infallible> {
///     Ok(item)
/// }
/// assert_eq!(borrowed::run(&[1, 2]).await.unwrap().results, [Some(&1), Some(&2)]);
/// # }
/// ```
#[cfg(doctest)]
struct OlderEdition;
