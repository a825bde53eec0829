//! The look-ups and the writes of one run.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tracing::warn;

use super::Options;
use crate::engine::cache::Cacher;
use crate::store::holder::holder;
use crate::store::{CacheKey, Claim, Sealed, Store, StoreError};

/// How many writes may be under way before no other item is looked up.
const MOST_WRITES: usize = 256;

/// How many items may wait for what others compute before no other item is looked up.
const MOST_WAITING: usize = 256;

/// How long to wait before another process is asked again for what it computes: from the first time on twice as long each
/// time, up to the last.
const FIRST_PATIENCE: Duration = Duration::from_millis(5);
const LAST_PATIENCE: Duration = Duration::from_millis(200);

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Looks up outputs in a store, and writes them there.
pub(super) struct StoreCacher<R: Store> {
    desk: Arc<Desk<R>>,
    look_ups: FuturesUnordered<BoxFuture<(usize, Found)>>,
    /// What was looked up, until it is known what becomes of it.
    missing: HashMap<usize, CacheKey>,
    /// Those of them that others wait for.
    claimed: HashSet<usize>,
    /// When the claims are renewed.
    renewal: Option<Pin<Box<Sleep>>>,
    /// What is under way and nobody waits for.
    writes: FuturesUnordered<BoxFuture<()>>,
}

/// What all look-ups and writes of a run share.
struct Desk<R> {
    store: R,
    task: String,
    options: Options,
    holder: String,
    /// Tells those who wait for an equal item of this run that it has ended.
    freed: Notify,
    /// How many look-ups wait for what others compute.
    waiting: AtomicUsize,
    /// Whether nobody wants to know any more what is looked up.
    is_closing: AtomicBool,
}

/// How a look-up has ended.
enum Found {
    Output { key: CacheKey, json: String },
    Nothing { key: CacheKey, is_claimed: bool },
}

impl<R: Store> StoreCacher<R> {
    pub(super) fn new(store: R, task: String, options: Options) -> Self {
        let desk = Desk {
            store,
            task,
            options,
            holder: holder(),
            freed: Notify::new(),
            waiting: AtomicUsize::new(0),
            is_closing: AtomicBool::new(false),
        };
        let (look_ups, missing, claimed, writes) = Default::default();
        Self { desk: Arc::new(desk), look_ups, missing, claimed, renewal: None, writes }
    }

    /// Polls what nobody waits for.
    fn poll_background(&mut self, cx: &mut Context<'_>) {
        if self.claimed.is_empty() {
            self.renewal = None;
        } else {
            let third = self.desk.options.lease / 3;
            let renewal = self.renewal.get_or_insert_with(|| Box::pin(sleep(third)));
            if renewal.as_mut().poll(cx).is_ready() {
                renewal.as_mut().reset(Instant::now() + third);
                let _registered = renewal.as_mut().poll(cx);
                for (index, key) in self.missing.iter().filter(|(index, _)| self.claimed.contains(index)) {
                    self.writes.push(Box::pin(Arc::clone(&self.desk).renew(*index, key.clone())));
                }
            }
        }
        while let Poll::Ready(Some(())) = Pin::new(&mut self.writes).poll_next(cx) {}
    }

    /// Lets the next one compute what this run has claimed and will not.
    fn release_all(&mut self) {
        for index in mem::take(&mut self.claimed) {
            if let Some(key) = self.missing.remove(&index) {
                self.writes.push(Box::pin(Arc::clone(&self.desk).release(index, key)));
            }
        }
    }
}

impl<R: Store> Cacher for StoreCacher<R> {
    fn look_up(&mut self, index: usize, item_hash: String) {
        self.look_ups.push(Box::pin(Arc::clone(&self.desk).look_up(index, item_hash)));
    }

    fn poll_found(&mut self, cx: &mut Context<'_>) -> Poll<(usize, Option<String>)> {
        self.poll_background(cx);
        let Some((index, found)) = ready!(Pin::new(&mut self.look_ups).poll_next(cx)) else {
            return Poll::Pending;
        };
        Poll::Ready(match found {
            Found::Output { key, json } => {
                self.missing.insert(index, key);
                (index, Some(json))
            }
            Found::Nothing { key, is_claimed } => {
                self.missing.insert(index, key);
                if is_claimed {
                    self.claimed.insert(index);
                    self.poll_background(cx);
                }
                (index, None)
            }
        })
    }

    fn keep(&mut self, index: usize, output: String) {
        self.claimed.remove(&index);
        if let Some(key) = self.missing.remove(&index) {
            self.writes.push(Box::pin(Arc::clone(&self.desk).put(index, key, output)));
        }
    }

    fn release(&mut self, index: usize) {
        let key = self.missing.remove(&index);
        if let (Some(key), true) = (key, self.claimed.remove(&index)) {
            self.writes.push(Box::pin(Arc::clone(&self.desk).release(index, key)));
        }
    }

    fn has_room(&self, free: usize) -> bool {
        let waiting = self.desk.waiting.load(Relaxed);
        self.look_ups.len() - waiting < free && waiting < MOST_WAITING && self.writes.len() < MOST_WRITES
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.desk.close();
        if !self.desk.options.serialized {
            self.look_ups.clear();
        }
        while let Poll::Ready(Some((index, found))) = Pin::new(&mut self.look_ups).poll_next(cx) {
            if let Found::Nothing { key, is_claimed: true } = found {
                self.missing.insert(index, key);
                self.claimed.insert(index);
            }
        }
        self.release_all();
        self.poll_background(cx);
        if self.look_ups.is_empty() && self.writes.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// A run that is dropped keeps what it has computed and lets others compute the rest, in a task of its own.
impl<R: Store> Drop for StoreCacher<R> {
    fn drop(&mut self) {
        self.release_all();
        self.desk.close();
        let (desk, writes) = (Arc::clone(&self.desk), mem::take(&mut self.writes));
        let mut look_ups =
            if desk.options.serialized { mem::take(&mut self.look_ups) } else { <_>::default() };
        if writes.is_empty() && look_ups.is_empty() {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            writes.collect::<()>().await;
            while let Some((index, found)) = look_ups.next().await {
                if let Found::Nothing { key, is_claimed: true } = found {
                    Arc::clone(&desk).release(index, key).await;
                }
            }
        });
    }
}

impl<R: Store> Desk<R> {
    async fn look_up(self: Arc<Self>, index: usize, item_hash: String) -> (usize, Found) {
        let key = CacheKey { task: self.task.clone(), version: self.options.version.clone(), item_hash };
        let found = if self.options.serialized {
            self.claim(index, key).await
        } else if self.options.overwrite {
            Found::Nothing { key, is_claimed: false }
        } else {
            self.read(index, key).await
        };
        (index, found)
    }

    async fn read(&self, index: usize, key: CacheKey) -> Found {
        match self.store.cached(&key).await {
            Ok(Some(sealed)) => match open(&key, &sealed) {
                Ok(json) => return Found::Output { key, json },
                Err(error) => self.tell(index, "what is cached is damaged, and is computed anew", &error),
            },
            Ok(None) => {}
            Err(error) => self.tell(index, "the cache could not be read", &error),
        }
        Found::Nothing { key, is_claimed: false }
    }

    /// Waits until the output is there or is this item's to compute.
    async fn claim(&self, index: usize, key: CacheKey) -> Found {
        let Options { lease, mut overwrite, .. } = self.options;
        let mut patience = FIRST_PATIENCE;
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.is_closing.load(Acquire) {
                return Found::Nothing { key, is_claimed: false };
            }
            let claim = self.store.claim(&key, &self.claimant(index), lease, overwrite).await;
            match claim {
                Ok(Claim::Granted) => return Found::Nothing { key, is_claimed: true },
                Ok(Claim::Cached(sealed)) => match open(&key, &sealed) {
                    Ok(json) => return Found::Output { key, json },
                    Err(error) => {
                        self.tell(index, "what is cached is damaged, and is computed anew", &error);
                        overwrite = true;
                    }
                },
                Ok(Claim::Held { remaining }) => {
                    // What another computes meanwhile is new enough.
                    overwrite = false;
                    self.waiting.fetch_add(1, Relaxed);
                    let _timed_out = timeout(patience.min(remaining), freed).await;
                    self.waiting.fetch_sub(1, Relaxed);
                    patience = (2 * patience).min(LAST_PATIENCE);
                }
                Err(error) => {
                    self.tell(index, "the cache could not be read", &error);
                    return Found::Nothing { key, is_claimed: false };
                }
            }
        }
    }

    async fn put(self: Arc<Self>, index: usize, key: CacheKey, json: String) {
        let sealed = Sealed::seal(json, &belongs_to(&key));
        if let Err(error) = self.store.put_cached(&key, &sealed, self.options.expires_after).await {
            self.tell(index, "the output was not cached", &error);
            if self.options.serialized {
                return self.release(index, key).await;
            }
        }
        self.freed.notify_waiters();
    }

    async fn release(self: Arc<Self>, index: usize, key: CacheKey) {
        if let Err(error) = self.store.release_claim(&key, &self.claimant(index)).await {
            self.tell(index, "others wait for it until its lease is over", &error);
        }
        self.freed.notify_waiters();
    }

    async fn renew(self: Arc<Self>, index: usize, key: CacheKey) {
        match self.store.renew_claim(&key, &self.claimant(index), self.options.lease).await {
            Ok(true) => {}
            Ok(false) => {
                self.tell(index, "another may compute it, too", &"its claim was not renewed in time")
            }
            Err(error) => self.tell(index, "its claim was not renewed", &error),
        }
    }

    /// Ends the waiting for what others compute.
    fn close(&self) {
        self.is_closing.store(true, Release);
        self.freed.notify_waiters();
    }

    /// The holder of a claim: equal items of one run are different ones.
    fn claimant(&self, index: usize) -> String {
        format!("{}/{index}", self.holder)
    }

    fn tell(&self, index: usize, what: &str, error: &dyn Display) {
        warn!(target: "async_map_task", task = self.task, index, %error, "{what}");
    }
}

fn belongs_to(key: &CacheKey) -> [&str; 3] {
    [&key.task, &key.version, &key.item_hash]
}

fn open(key: &CacheKey, sealed: &Sealed) -> Result<String, StoreError> {
    sealed.open(&belongs_to(key)).map(ToOwned::to_owned)
}
