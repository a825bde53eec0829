//! The reads and writes of the states of a run's items, driven by the run's own task.

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

/// The end of the queue that attempts hold.
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
    /// Whether its caller has dropped it.
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

/// The end of the queue that the run's task holds.
///
/// The requests of one item are made one after the other, in their order. An attempt that does not poll its request holds
/// nothing of the store, and a save that it has abandoned cannot overtake a later one. There are never more requests than
/// callers that wait for one, and one abandoned request an item that the store already has.
pub(crate) struct CheckpointQueue<R> {
    run: Arc<Run<R>>,
    requests: UnboundedReceiver<Request>,
    /// By index: what waits for the request of the same item that the store has.
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

    /// Drives the requests until something else is ready.
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
            // Also what was sent a moment ago: `poll_recv` may say that nothing is there, to let other tasks run.
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

    /// Begins the item's next request that is still wanted.
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
        // A caller that has abandoned the request does not take the answer.
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
