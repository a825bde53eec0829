//! The options of a run of batches.

use std::time::Duration;

use super::MapRun;
use super::options::hook;
use crate::engine::Plan;
use crate::engine::running::Parts;
use crate::engine::user::batches::MapsBatches;
use crate::engine::user::hooks::{OnWeight, Weight};

/// # Batches
///
/// A run of [`map_batches`](crate::Over::map_batches) has these options as well.
impl<R: Plan<Call: MapsBatches>> MapRun<R> {
    /// Sets how much an item weighs, and how much the items of one call may weigh together: tokens, bytes, rows. The default is
    /// no such bound.
    ///
    /// A call then has at most as many items as fit, in their order, and at most the `size` of
    /// [`map_batches`](crate::Over::map_batches). An item that weighs more than `most` has a call of its own. The function is
    /// called once per item, when the item is pulled, and 0 counts as 1.
    ///
    /// # Errors
    ///
    /// A `most` of 0 ends the run with [`FailureReason::Config`](crate::FailureReason::Config) before any item starts.
    ///
    /// # Examples
    ///
    /// At most 100 texts and 8,000 bytes in one call:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    ///
    /// let texts = (0..30).map(|n| "x".repeat(n * 100));
    /// let largest = AsyncMapTask::default()
    ///     .over(texts)
    ///     .map_batches(100, |texts: Vec<String>| async move {
    ///         let bytes: usize = texts.iter().map(String::len).sum();
    ///         Ok::<_, String>(texts.iter().map(|_| Ok(bytes)).collect())
    ///     })
    ///     .batch_weight(|text| u32::try_from(text.len()).unwrap_or(u32::MAX), 8_000)
    ///     .await?
    ///     .into_successful_results();
    /// assert!(largest.iter().all(|bytes| *bytes <= 8_000));
    /// # Ok(())
    /// # }
    /// ```
    pub fn batch_weight<F>(self, function: F, most: u32) -> MapRun<Weight<R, F>>
    where
        F: Fn(&R::Item) -> u32,
    {
        let run = self.with_options(|options| {
            if let Some(batches) = &mut options.batches {
                batches.most_weight = Some(most);
            }
        });
        hook!(run, below => OnWeight { below, function })
    }

    /// Sets how long a call waits for more items after it could start. The default is zero: a call starts as soon as nothing more
    /// can join it without waiting.
    ///
    /// Use it for a stream that gives its items one by one. A full call never waits, and neither does the last one. While all
    /// permits are in use, items gather anyway, whatever this is set to.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use async_map_task::AsyncMapTask;
    /// use futures::{StreamExt, stream};
    /// use std::time::Duration;
    ///
    /// // An item every 10 ms.
    /// let slow = stream::iter(0..100).then(|n| async move {
    ///     tokio::time::sleep(Duration::from_millis(10)).await;
    ///     n
    /// });
    /// let calls = std::cell::Cell::new(0);
    /// let result = AsyncMapTask::default()
    ///     .over_stream(slow.boxed())
    ///     .map_batches(50, |items: Vec<u32>| {
    ///         calls.set(calls.get() + 1);
    ///         async move { Ok::<_, String>(items.into_iter().map(Ok).collect()) }
    ///     })
    ///     .batch_wait(Duration::from_secs(1))
    ///     .await?;
    /// assert_eq!((result.successes(), calls.get()), (100, 2));
    /// # Ok(())
    /// # }
    /// ```
    pub fn batch_wait(self, wait: Duration) -> Self {
        self.with_options(|options| {
            if let Some(batches) = &mut options.batches {
                batches.wait = wait;
            }
        })
    }

    /// Sets whether a call that has failed as a whole, and is not made again, is split until the items that fail alone are
    /// known. The default is `true`.
    ///
    /// With `false`, all items of such a call fail. One of them has its error, and the others are
    /// [`Faulted`](crate::ItemError::Faulted). Use it if a call fails as a whole only because of its server.
    pub fn split_failed(self, split: bool) -> Self {
        self.with_options(|options| {
            if let Some(batches) = &mut options.batches {
                batches.splits = split;
            }
        })
    }
}
