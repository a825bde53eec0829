//! What an item saves of its state, for a later attempt.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::json::{decode_state, encode_state};
use crate::store::{Sealed, Store, StoreError};

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

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
    checkpoints: Arc<dyn Checkpoints>,
    index: usize,
    item_hash: String,
}

impl Checkpoint {
    /// That of a run that keeps nothing.
    pub(crate) const NONE: Self = Self { place: None };

    pub(crate) fn new(checkpoints: Arc<dyn Checkpoints>, index: usize, item_hash: String) -> Self {
        Self { place: Some(Place { checkpoints, index, item_hash }) }
    }

    /// The state that was saved last, `None` where none was.
    ///
    /// # Cancel safety
    ///
    /// It only reads.
    ///
    /// # Errors
    ///
    /// Where the store cannot be read, the state is damaged or is not of this type; and [`StoreError::NotKept`] in a run
    /// without [`recover`](crate::MapRun::recover).
    pub async fn load<S: DeserializeOwned>(&self) -> Result<Option<S>, StoreError> {
        let Place { checkpoints, index, item_hash } = self.place()?;
        match checkpoints.load(*index, item_hash).await? {
            None => Ok(None),
            Some(json) => decode_state(*index, &json).map(Some),
        }
    }

    /// Saves a state, in place of the one before. When it returns, the state is durable.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it has saved the state or has left the one before; never half of it.
    ///
    /// # Errors
    ///
    /// Where the store cannot be written, another has taken the run, or the state cannot be kept as JSON; and
    /// [`StoreError::NotKept`] in a run without [`recover`](crate::MapRun::recover). JSON cannot express a NaN, an infinity, a
    /// `Some(None)` or a key that a map has twice, and at most 256 levels of lists and maps are read again. The error names
    /// the field, and the state before it stays.
    pub async fn save<S: Serialize + ?Sized>(&self, state: &S) -> Result<(), StoreError> {
        let Place { checkpoints, index, item_hash } = self.place()?;
        let json = encode_state(*index, state)?;
        checkpoints.save(*index, item_hash, json).await
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

/// The states of the items of one run.
pub(crate) trait Checkpoints: Send + Sync {
    fn load<'a>(&'a self, index: usize, item_hash: &'a str) -> BoxFuture<'a, Option<String>>;
    fn save<'a>(&'a self, index: usize, item_hash: &'a str, json: String) -> BoxFuture<'a, ()>;
}

/// Those of a run in a store.
pub(crate) struct StoredCheckpoints<R> {
    pub(crate) store: R,
    pub(crate) run_id: String,
    pub(crate) holder: String,
}

impl<R: Store> Checkpoints for StoredCheckpoints<R> {
    fn load<'a>(&'a self, index: usize, item_hash: &'a str) -> BoxFuture<'a, Option<String>> {
        Box::pin(async move {
            let Some(state) = self.store.checkpoint(&self.run_id, index as u64, item_hash).await? else {
                return Ok(None);
            };
            state.open(&[&self.run_id, &index.to_string(), item_hash])?;
            Ok(Some(state.json))
        })
    }

    fn save<'a>(&'a self, index: usize, item_hash: &'a str, json: String) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let state = Sealed::seal(json, &[&self.run_id, &index.to_string(), item_hash]);
            self.store.save_checkpoint(&self.run_id, &self.holder, index as u64, item_hash, &state).await
        })
    }
}
