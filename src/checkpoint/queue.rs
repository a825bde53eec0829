//! The queue of the reads and writes of item states, driven by the run's own task.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::store::{Checksummed, LeaseLoss, Store, StoreError};

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// The sending end of the queue, for attempts.
#[derive(Debug)]
pub(crate) struct Requests {
    pub(super) run_id: String,
    holder: String,
    sender: UnboundedSender<Request>,
}

#[derive(Debug)]
struct Request {
    index: usize,
    item_hash: String,
    wanted: Wanted,
}

#[derive(Debug)]
enum Wanted {
    Load(Answer<Option<Checksummed>>),
    Save(Checksummed, Answer<()>),
}

impl Request {
    /// Returns `true` if the caller has dropped the request.
    fn is_abandoned(&self) -> bool {
        match &self.wanted {
            Wanted::Load(answer) => answer.is_closed(),
            Wanted::Save(_, answer) => answer.is_closed(),
        }
    }
}

impl Requests {
    pub(super) async fn load(
        &self,
        index: usize,
        item_hash: &str,
    ) -> Result<Option<Checksummed>, StoreError> {
        self.ask(index, item_hash, Wanted::Load).await
    }

    pub(super) async fn save(
        &self,
        index: usize,
        item_hash: &str,
        state: Checksummed,
    ) -> Result<(), StoreError> {
        self.ask(index, item_hash, |answer| Wanted::Save(state, answer)).await
    }

    async fn ask<T>(
        &self,
        index: usize,
        item_hash: &str,
        wanted: impl FnOnce(Answer<T>) -> Wanted,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let request = Request { index, item_hash: item_hash.to_owned(), wanted: wanted(answer) };
        // If the task has ended, there is no answer.
        let _ = self.sender.send(request);
        let ended = || StoreError::lease_lost(&self.run_id, &self.holder, LeaseLoss::Ended);
        answered.await.unwrap_or_else(|_| Err(ended()))
    }
}

/// The receiving end of the queue, for the run's task.
///
/// The requests of one item are made one after another, in their order. So an attempt that does not poll its request blocks
/// nothing in the store, and an abandoned save cannot overtake a later one. The queue is never longer than the number of
/// waiting callers, plus one abandoned request for each item that the store is processing.
pub(crate) struct CheckpointQueue<R> {
    run: Arc<Run<R>>,
    requests: UnboundedReceiver<Request>,
    /// By index: the requests that wait for another one of the same item in the store.
    waiting: HashMap<usize, VecDeque<Request>>,
    /// Each returns its index.
    under_way: FuturesUnordered<Pin<Box<dyn Future<Output = usize> + Send>>>,
}

struct Run<R> {
    store: R,
    run_id: String,
    holder: String,
}

impl<R: Store> CheckpointQueue<R> {
    pub(crate) fn new(store: R, run_id: String, holder: String) -> (Requests, Self) {
        let (sender, requests) = unbounded_channel();
        let asking = Requests { run_id: run_id.clone(), holder: holder.clone(), sender };
        let (waiting, under_way) = Default::default();
        (asking, Self { run: Arc::new(Run { store, run_id, holder }), requests, waiting, under_way })
    }

    /// Drives the requests until `other` is ready.
    pub(crate) async fn drive_beside<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = pin!(other);
        poll_fn(|cx| {
            self.poll(cx);
            other.as_mut().poll(cx)
        })
        .await
    }

    /// Drives the requests until none of these items has one.
    pub(crate) async fn drain(&mut self, indices: impl Iterator<Item = usize> + Clone) {
        poll_fn(|cx| {
            // Includes requests that were sent a moment ago: `poll_recv` may return `Pending` to let other tasks run.
            while let Ok(request) = self.requests.try_recv() {
                self.take(request);
            }
            self.poll(cx);
            let is_idle =
                self.waiting.is_empty() || !indices.clone().any(|index| self.waiting.contains_key(&index));
            if is_idle { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(request)) = self.requests.poll_recv(cx) {
            self.take(request);
        }
        while let Poll::Ready(Some(index)) = Pin::new(&mut self.under_way).poll_next(cx) {
            self.begin_next(index);
        }
    }

    fn take(&mut self, request: Request) {
        match self.waiting.get_mut(&request.index) {
            Some(waiting) => {
                waiting.retain(|request| !request.is_abandoned());
                waiting.push_back(request);
            }
            None => {
                self.waiting.insert(request.index, VecDeque::new());
                self.begin(request);
            }
        }
    }

    /// Begins the item's next request that was not abandoned.
    fn begin_next(&mut self, index: usize) {
        while let Some(request) = self.waiting.get_mut(&index).and_then(VecDeque::pop_front) {
            if !request.is_abandoned() {
                return self.begin(request);
            }
        }
        self.waiting.remove(&index);
    }

    fn begin(&self, request: Request) {
        self.under_way.push(Box::pin(Arc::clone(&self.run).make(request)));
    }
}

impl<R: Store> Run<R> {
    async fn make(self: Arc<Self>, request: Request) -> usize {
        let Request { index, item_hash, wanted } = request;
        let Self { store, run_id, holder } = &*self;
        // A caller that has abandoned the request does not receive the answer.
        match wanted {
            Wanted::Load(answer) => {
                let _ = answer.send(store.checkpoint(run_id, index as u64, &item_hash).await);
            }
            Wanted::Save(state, answer) => {
                let saved = store.save_checkpoint(run_id, holder, index as u64, &item_hash, &state).await;
                let _ = answer.send(saved);
            }
        }
        index
    }
}
