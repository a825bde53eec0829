//! Checkpoints: the saved states of items, for later attempts.

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
/// Each item of a run has one state: the last one that was saved, by any attempt in any process. A later attempt finds it,
/// and so does the first attempt of a later run of the same id. The state belongs to the item's content: an item that has
/// changed starts without a state. When the item succeeds, the state is deleted. When it fails, the state stays for the next
/// run.
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
    /// `None` in a run without `recover`.
    place: Option<Place>,
}

#[derive(Clone)]
struct Place {
    requests: Arc<Requests>,
    index: usize,
    item_hash: String,
}

impl Checkpoint {
    /// The checkpoint of a run without `recover`.
    pub(crate) const NONE: Self = Self { place: None };

    pub(crate) fn new(requests: Arc<Requests>, index: usize, item_hash: String) -> Self {
        Self { place: Some(Place { requests, index, item_hash }) }
    }

    /// Returns the last saved state, or `None` if there is none.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe: it only reads.
    ///
    /// # Errors
    ///
    /// [`StoreError::LeaseLost`] once the run has ended, and [`StoreError::NotKept`] in a run without
    /// [`recover`](crate::MapRun::recover). Other errors if the store cannot be read, the state is damaged, or it is not of
    /// this type.
    pub async fn load<S: DeserializeOwned>(&self) -> Result<Option<S>, StoreError> {
        let Place { requests, index, item_hash } = self.place()?;
        let Some(state) = requests.load(*index, item_hash).await? else { return Ok(None) };
        let json = state.verify(&[&requests.run_id, &index.to_string(), item_hash])?;
        decode_state(*index, json).map(Some)
    }

    /// Saves a state, and replaces the earlier one. When this returns `Ok`, the state is durable.
    ///
    /// The run's own task writes the state, so a save that is not polled blocks nothing. The saves of one item are made in
    /// the order of their calls, including those that were dropped.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the state is either saved completely or the earlier one stays.
    ///
    /// # Errors
    ///
    /// [`StoreError::LeaseLost`] if another holder has acquired the run or the run has ended, and [`StoreError::NotKept`] in
    /// a run without [`recover`](crate::MapRun::recover). Other errors if the store cannot be written.
    ///
    /// [`StoreError::Json`] if the state cannot be written as JSON or [does not come
    /// back](crate::store#outputs-that-come-back) from it unchanged. Like an output, it is read back once
    /// before it is saved. JSON cannot express a NaN, an infinity, a `Some(None)` or a duplicate key of a map. At most 256
    /// levels of lists and maps can be read back. The error names the field, and the earlier state stays.
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
