//! What an item saves of its state, for a later attempt.

mod queue;

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::queue::{CheckpointQueue, Requests};
use crate::store::json::{decode_state, encode_state};
use crate::store::{Checksummed, StoreError};

/// The saved state of one item; see [`ItemContext::checkpoint`](crate::ItemContext::checkpoint).
///
/// There is one state for each item of a run, the one that was saved last, by whichever attempt of whichever process: a
/// later attempt finds it, and so does the first attempt of a later run of the same id. It is of the item's content, too:
/// an item that has changed starts anew. When the item has succeeded, the state is deleted; when it has failed, it stays, for
/// the next run.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use async_map_task::AsyncMapTask;
/// use async_map_task::store::MemoryStore;
///
/// let store = MemoryStore::new();
/// let task = AsyncMapTask::builder().name("sum").retries(1).retry_delay(std::time::Duration::ZERO).build()?;
/// let result = task
///     .over([10_u64])
///     .map_with_context(|cx, n| async move {
///         let checkpoint = cx.checkpoint();
///         let (mut sum, from): (u64, u64) = checkpoint.load().await?.unwrap_or_default();
///         for i in from..n {
///             sum += i;
///             checkpoint.save(&(sum, i + 1)).await?;
///             if cx.attempt() == 1 && i == 5 {
///                 return Err("lost".into());
///             }
///         }
///         Ok::<_, async_map_task::BoxError>(sum)
///     })
///     .recover(&store, "sums")
///     .await?;
/// assert_eq!(result.results, [Some(45)]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Checkpoint {
    /// `None` where the run keeps nothing.
    place: Option<Place>,
}

#[derive(Clone)]
struct Place {
    requests: Arc<Requests>,
    index: usize,
    item_hash: String,
}

impl Checkpoint {
    /// That of a run that keeps nothing.
    pub(crate) const NONE: Self = Self { place: None };

    pub(crate) fn new(requests: Arc<Requests>, index: usize, item_hash: String) -> Self {
        Self { place: Some(Place { requests, index, item_hash }) }
    }

    /// The state that was saved last, `None` if none was.
    ///
    /// # Cancel safety
    ///
    /// It only reads.
    ///
    /// # Errors
    ///
    /// The store cannot be read, or the state is damaged or not of this type; [`StoreError::LeaseLost`] once the run has ended;
    /// and [`StoreError::NotKept`] in a run without [`recover`](crate::MapRun::recover).
    pub async fn load<S: DeserializeOwned>(&self) -> Result<Option<S>, StoreError> {
        let Place { requests, index, item_hash } = self.place()?;
        let Some(state) = requests.load(*index, item_hash).await? else { return Ok(None) };
        let json = state.verify(&[&requests.run_id, &index.to_string(), item_hash])?;
        decode_state(*index, json).map(Some)
    }

    /// Saves a state, in place of the one before. When it returns, the state is durable.
    ///
    /// The run's own task writes it, so that a save that is not polled holds up nothing. The saves of one item are made in
    /// their order, also those that were dropped.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it has saved the state or has left the one before; never half of it.
    ///
    /// # Errors
    ///
    /// The store cannot be written; [`StoreError::LeaseLost`] if another has taken the run, or it has ended; and
    /// [`StoreError::NotKept`] in a run without [`recover`](crate::MapRun::recover).
    ///
    /// [`StoreError::Json`] if the state cannot be kept as JSON or [does not come
    /// back](crate::guide::durable_runs#outputs-that-come-back) from it as it went: it is read once before it is saved, as an
    /// output is. JSON cannot express a NaN, an infinity, a `Some(None)` or a key that a map has twice, and at most 256 levels
    /// of lists and maps are read again. The error names the field, and the state before it stays.
    pub async fn save<S: Serialize + DeserializeOwned>(&self, state: &S) -> Result<(), StoreError> {
        let Place { requests, index, item_hash } = self.place()?;
        let json = encode_state(*index, state)?;
        let state = Checksummed::new(json, &[&requests.run_id, &index.to_string(), item_hash]);
        requests.save(*index, item_hash, state).await
    }

    fn place(&self) -> Result<&Place, StoreError> {
        self.place.as_ref().ok_or(StoreError::NotKept)
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = self.place.as_ref().map(|place| place.index);
        f.debug_struct("Checkpoint").field("index", &index).finish_non_exhaustive()
    }
}
