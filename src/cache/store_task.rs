//! The task that looks up outputs for a run, and writes the computed ones.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tracing::warn;

use super::Options;
use crate::store::holder::holder;
use crate::store::{CacheKey, Checksummed, Claim, Store, StoreError};

/// The first and the last wait before the store is asked again for an output that another process computes. Each wait is
/// twice as long as the one before, up to the last.
const FIRST_WAIT: Duration = Duration::from_millis(5);
const LAST_WAIT: Duration = Duration::from_millis(200);

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A request of the run to its store task. There are never more requests than items that run or are looked up.
pub(super) enum Request {
    LookUp {
        index: usize,
        item_hash: String,
    },
    /// Stores the output of an item that was looked up.
    Keep {
        index: usize,
        output: String,
    },
    /// Ends an item that was looked up and has no output to store.
    Release {
        index: usize,
    },
}

/// An answer of the store task.
pub(super) enum Answer {
    Found { index: usize, output: Option<String> },
    Load(Load),
}

/// The work in progress of a store task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// The look-ups that wait for the computations of others.
    pub(super) waiting: usize,
    pub(super) writes: usize,
    /// The bytes of these writes.
    pub(super) bytes: usize,
    /// How many writes were requested since the last report.
    pub(super) taken: usize,
    /// The bytes of these writes.
    pub(super) taken_bytes: usize,
}

pub(super) struct StoreTask<R> {
    shared: Arc<SharedContext<R>>,
    look_ups: FuturesUnordered<BoxFuture<(usize, Found)>>,
    /// The keys of the items that were looked up, until the run stores or releases them.
    missing: HashMap<usize, CacheKey>,
    /// The items among them with a claim of this run.
    claimed: HashSet<usize>,
    /// When the claims are renewed.
    renewal: Option<Pin<Box<Sleep>>>,
    /// Each returns its number of bytes.
    writes: FuturesUnordered<BoxFuture<usize>>,
    bytes: usize,
    reported: Load,
    taken: usize,
    taken_bytes: usize,
    is_closing: bool,
}

/// The context that all look-ups and writes of a run share.
struct SharedContext<R> {
    store: R,
    task: String,
    options: Options,
    holder: String,
    /// Notifies the look-ups that wait for an equal item of this run when that item has ended.
    freed: Notify,
    /// How many look-ups wait for the computations of others.
    waiting: AtomicUsize,
    /// `true` if the results of look-ups are no longer needed.
    is_closing: AtomicBool,
}

/// The result of a look-up.
enum Found {
    Output { key: CacheKey, json: String },
    Nothing { key: CacheKey, is_claimed: bool },
}

impl<R: Store> StoreTask<R> {
    pub(super) fn new(store: R, task: String, options: Options) -> Self {
        let shared = SharedContext {
            store,
            task,
            options,
            holder: holder(),
            freed: Notify::new(),
            waiting: AtomicUsize::new(0),
            is_closing: AtomicBool::new(false),
        };
        let (look_ups, missing, claimed, writes) = Default::default();
        Self {
            shared: Arc::new(shared),
            look_ups,
            missing,
            claimed,
            renewal: None,
            writes,
            bytes: 0,
            reported: Load::default(),
            taken: 0,
            taken_bytes: 0,
            is_closing: false,
        }
    }

    /// Serves requests. Returns `Ready` when no more requests can arrive, all writes are done, and all claims are released.
    pub(super) fn poll(
        &mut self,
        asked: &mut UnboundedReceiver<Request>,
        answering: &UnboundedSender<Answer>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        while !self.is_closing {
            match asked.poll_recv(cx) {
                Poll::Ready(Some(request)) => self.begin(request),
                Poll::Ready(None) => self.close(),
                Poll::Pending => break,
            }
        }
        while let Poll::Ready(Some((index, found))) = Pin::new(&mut self.look_ups).poll_next(cx) {
            let output = self.note(index, found);
            let _the_run_may_be_over = answering.send(Answer::Found { index, output });
        }
        if self.is_closing {
            self.release_all();
        }
        self.poll_renewal(cx);
        while let Poll::Ready(Some(bytes)) = Pin::new(&mut self.writes).poll_next(cx) {
            self.bytes -= bytes;
        }
        self.report(answering);
        let is_over = self.is_closing && self.look_ups.is_empty() && self.writes.is_empty();
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    }

    fn begin(&mut self, request: Request) {
        match request {
            Request::LookUp { index, item_hash } => {
                self.look_ups.push(Box::pin(Arc::clone(&self.shared).look_up(index, item_hash)));
            }
            Request::Keep { index, output } => {
                let bytes = output.len();
                self.taken += 1;
                self.taken_bytes += bytes;
                self.claimed.remove(&index);
                if let Some(key) = self.missing.remove(&index) {
                    self.write(bytes, Arc::clone(&self.shared).put(index, key, output));
                }
            }
            Request::Release { index } => {
                self.taken += 1;
                let key = self.missing.remove(&index);
                if let (Some(key), true) = (key, self.claimed.remove(&index)) {
                    self.write(0, Arc::clone(&self.shared).release(index, key));
                }
            }
        }
    }

    fn write(&mut self, bytes: usize, write: impl Future<Output = ()> + Send + 'static) {
        self.bytes += bytes;
        self.writes.push(Box::pin(async move {
            write.await;
            bytes
        }));
    }

    /// Records the result of a look-up, and returns the output if there is one.
    fn note(&mut self, index: usize, found: Found) -> Option<String> {
        let (key, output) = match found {
            Found::Output { key, json } => (key, Some(json)),
            Found::Nothing { key, is_claimed } => {
                if is_claimed {
                    self.claimed.insert(index);
                }
                (key, None)
            }
        };
        self.missing.insert(index, key);
        output
    }

    fn poll_renewal(&mut self, cx: &mut Context<'_>) {
        if self.claimed.is_empty() {
            self.renewal = None;
            return;
        }
        let third = self.shared.options.lease / 3;
        let renewal = self.renewal.get_or_insert_with(|| Box::pin(sleep(third)));
        if renewal.as_mut().poll(cx).is_ready() {
            renewal.as_mut().reset(Instant::now() + third);
            let _registered = renewal.as_mut().poll(cx);
            let claimed = self.missing.iter().filter(|(index, _)| self.claimed.contains(index));
            for (index, key) in claimed.map(|(index, key)| (*index, key.clone())).collect::<Vec<_>>() {
                self.write(0, Arc::clone(&self.shared).renew(index, key));
            }
        }
    }

    /// Reports the load to the run, if it has changed.
    fn report(&mut self, answering: &UnboundedSender<Answer>) {
        let load = Load {
            waiting: self.shared.waiting.load(Relaxed),
            writes: self.writes.len(),
            bytes: self.bytes,
            taken: mem::take(&mut self.taken),
            taken_bytes: mem::take(&mut self.taken_bytes),
        };
        let under_way = Load { taken: 0, taken_bytes: 0, ..load };
        if under_way != self.reported || load.taken > 0 {
            self.reported = under_way;
            let _the_run_may_be_over = answering.send(Answer::Load(load));
        }
    }

    /// Ends the waiting for the computations of others. A claim that is granted later is released.
    fn close(&mut self) {
        self.is_closing = true;
        self.shared.close();
        if !self.shared.options.serialized {
            self.look_ups.clear();
        }
    }

    /// Releases the claims of items that this run will not compute, so that others can.
    fn release_all(&mut self) {
        for index in mem::take(&mut self.claimed) {
            if let Some(key) = self.missing.remove(&index) {
                self.write(0, Arc::clone(&self.shared).release(index, key));
            }
        }
    }
}

impl<R: Store> SharedContext<R> {
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
            Ok(Some(checksummed)) => match verify(&key, &checksummed) {
                Ok(json) => return Found::Output { key, json },
                Err(error) => self.warn(index, "cached output is damaged, will be computed again", &error),
            },
            Ok(None) => {}
            Err(error) => self.warn(index, "failed to read the cache", &error),
        }
        Found::Nothing { key, is_claimed: false }
    }

    /// Waits until the output exists or this item has the claim to compute it.
    async fn claim(&self, index: usize, key: CacheKey) -> Found {
        let Options { lease, mut overwrite, .. } = self.options;
        let mut wait = FIRST_WAIT;
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.is_closing.load(Acquire) {
                return Found::Nothing { key, is_claimed: false };
            }
            let claim = self.store.claim(&key, &self.claim_holder(index), lease, overwrite).await;
            match claim {
                Ok(Claim::Granted) => return Found::Nothing { key, is_claimed: true },
                Ok(Claim::Cached(checksummed)) => match verify(&key, &checksummed) {
                    Ok(json) => return Found::Output { key, json },
                    Err(error) => {
                        self.warn(index, "cached output is damaged, will be computed again", &error);
                        overwrite = true;
                    }
                },
                Ok(Claim::Held { remaining }) => {
                    // An output that another process computes in the meantime is recent enough.
                    overwrite = false;
                    self.waiting.fetch_add(1, Relaxed);
                    let _timed_out = timeout(wait.min(remaining), freed).await;
                    self.waiting.fetch_sub(1, Relaxed);
                    wait = (2 * wait).min(LAST_WAIT);
                }
                Err(error) => {
                    self.warn(index, "failed to read the cache", &error);
                    return Found::Nothing { key, is_claimed: false };
                }
            }
        }
    }

    async fn put(self: Arc<Self>, index: usize, key: CacheKey, json: String) {
        let checksummed = Checksummed::new(json, &belongs_to(&key));
        if let Err(error) = self.store.put_cached(&key, &checksummed, self.options.expires_after).await {
            self.warn(index, "failed to cache the output", &error);
            if self.options.serialized {
                return self.release(index, key).await;
            }
        }
        self.freed.notify_waiters();
    }

    async fn release(self: Arc<Self>, index: usize, key: CacheKey) {
        if let Err(error) = self.store.release_claim(&key, &self.claim_holder(index)).await {
            self.warn(index, "failed to release the claim, others wait until it expires", &error);
        }
        self.freed.notify_waiters();
    }

    async fn renew(self: Arc<Self>, index: usize, key: CacheKey) {
        match self.store.renew_claim(&key, &self.claim_holder(index), self.options.lease).await {
            Ok(true) => {}
            Ok(false) => self.warn(
                index,
                "the claim was lost, another holder may compute the same output",
                &"the holder failed to renew the claim in time",
            ),
            Err(error) => self.warn(index, "failed to renew the claim", &error),
        }
    }

    /// Ends the waiting for the computations of others.
    fn close(&self) {
        self.is_closing.store(true, Release);
        self.freed.notify_waiters();
    }

    /// Returns the holder of an item's claim. Equal items of one run are different holders.
    fn claim_holder(&self, index: usize) -> String {
        format!("{}/{index}", self.holder)
    }

    fn warn(&self, index: usize, what: &str, error: &dyn Display) {
        warn!(target: "async_map_task", task = self.task, index, %error, "{what}");
    }
}

fn belongs_to(key: &CacheKey) -> [&str; 3] {
    [&key.task, &key.version, &key.item_hash]
}

fn verify(key: &CacheKey, checksummed: &Checksummed) -> Result<String, StoreError> {
    checksummed.verify(&belongs_to(key)).map(ToOwned::to_owned)
}
