//! A run in a store: taken, renewed, written in groups, and given back.

use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{Instrument, Span, info, warn};

use super::Recovery;
use crate::engine::ledger::{Entry, Keeper};
use crate::engine::shutdown::ShutDown;
use crate::error::BoxError;
use crate::panic_payload::into_message;
use crate::store::seal::has_this_format;
use crate::store::{LeaseLoss, Record, Recorded, RunStatus, Sealed, Store, StoreError};

/// How many records of an earlier run are read at once.
const PAGE: u32 = 2_048;

/// How many records are written at once.
const MOST_AT_ONCE: usize = 1_024;

/// How long to wait before another holder is asked for the run once more.
const PATIENCE: Duration = Duration::from_millis(50);

/// What the run asks of its task. There are never more of these than the ledger lets records be on their way, and one
/// each of the others.
enum Request {
    Keep(Entry),
    Page { from: u64 },
    Close { status: RunStatus },
}

/// What the task answers.
enum Answer {
    /// The run is this holder's.
    Opened,
    Page(Vec<Record>),
    Kept(usize),
    Failed(StoreError),
}

/// The keeper of a run, which has a task of its own for the store.
pub(super) struct StoreKeeper<R> {
    state: State<R>,
    /// What has come of the earlier run and was not asked for, by ascending index.
    known: VecDeque<Record>,
    /// All items below this index are known.
    known_to: usize,
    is_page_asked: bool,
    kept: usize,
    error: Option<StoreError>,
    /// Why the task has ended that has given no error.
    lost: Option<Lost>,
    is_open: bool,
    is_closing: bool,
}

enum State<R> {
    Ready(Tending<R>),
    Running { requests: UnboundedSender<Request>, answers: UnboundedReceiver<Answer>, task: JoinHandle<()> },
    Over,
}

/// How a task ends without an answer.
enum Lost {
    ShutDown,
    Panicked(String),
}

impl<R: Store> StoreKeeper<R> {
    pub(super) fn new(store: R, task: String, recovery: Recovery, holder: String) -> Self {
        let state = State::Ready(Tending { store, task, recovery, holder });
        Self {
            state,
            known: VecDeque::new(),
            known_to: 0,
            is_page_asked: false,
            kept: 0,
            error: None,
            lost: None,
            is_open: false,
            is_closing: false,
        }
    }

    fn ask(&mut self, request: Request) {
        if let State::Ready(_) = self.state {
            if let State::Ready(tending) = mem::replace(&mut self.state, State::Over) {
                let ((requests, asked), (answering, answers)) = (unbounded_channel(), unbounded_channel());
                let task = tokio::spawn(tending.run(asked, answering).instrument(Span::current()));
                self.state = State::Running { requests, answers, task };
            }
        }
        if let State::Running { requests, .. } = &self.state {
            // A task that has ended has said why.
            let _ = requests.send(request);
        }
    }

    /// Takes what the task has answered. Pending until it says more, ready where it has ended.
    fn poll_answers(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let State::Running { answers, task, .. } = &mut self.state else { return Poll::Ready(()) };
        while let Some(answer) = ready!(answers.poll_recv(cx)) {
            match answer {
                Answer::Opened => self.is_open = true,
                Answer::Page(page) => {
                    let is_last = page.len() < PAGE as usize;
                    let last = page.last().map_or(0, |record| record.index as usize);
                    self.known_to = if is_last { usize::MAX } else { last + 1 };
                    self.known.extend(page);
                    self.is_page_asked = false;
                }
                Answer::Kept(kept) => self.kept += kept,
                Answer::Failed(error) => self.error = Some(error),
            }
        }
        if let Err(error) = ready!(Pin::new(task).poll(cx)) {
            let lost = |payload| Lost::Panicked(into_message(payload));
            self.lost = Some(error.try_into_panic().map_or(Lost::ShutDown, lost));
        }
        self.state = State::Over;
        Poll::Ready(())
    }

    /// Why there will be no answer.
    fn failure(&mut self) -> BoxError {
        match (self.error.take(), &self.lost) {
            (Some(error), _) => error.into(),
            (None, Some(Lost::ShutDown)) => ShutDown.into(),
            (None, Some(Lost::Panicked(message))) => format!("the store panicked: {message}").into(),
            (None, None) => "the task that writes to the store has ended".into(),
        }
    }
}

impl<R: Store> Keeper for StoreKeeper<R> {
    fn poll_known(&mut self, index: usize, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if index < self.known_to {
            return Poll::Ready(Ok(()));
        }
        if !mem::replace(&mut self.is_page_asked, true) {
            self.ask(Request::Page { from: self.known_to as u64 });
        }
        let polled = self.poll_answers(cx);
        if index < self.known_to {
            return Poll::Ready(Ok(()));
        }
        ready!(polled);
        Poll::Ready(Err(self.failure()))
    }

    fn recall(&mut self, index: usize) -> Option<Entry> {
        let wanted = index as u64;
        while self.known.front().is_some_and(|record| record.index < wanted) {
            self.known.pop_front();
        }
        let record = if self.known.front()?.index == wanted { self.known.pop_front()? } else { return None };
        let Record { item_hash, attempts, elapsed, recorded, .. } = record;
        let result = match recorded {
            Recorded::Succeeded { output } => Ok(output.json),
            Recorded::Failed { message } => Err(message),
        };
        Some(Entry { index, item_hash, attempts, elapsed, result })
    }

    fn keep(&mut self, entry: Entry) {
        self.ask(Request::Keep(entry));
    }

    fn poll_kept(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, BoxError>> {
        if let State::Ready(_) = self.state {
            return Poll::Pending;
        }
        let polled = self.poll_answers(cx);
        if self.kept > 0 {
            return Poll::Ready(Ok(mem::take(&mut self.kept)));
        }
        ready!(polled);
        Poll::Ready(Err(self.failure()))
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>, reason: Option<&str>) -> Poll<()> {
        if !mem::replace(&mut self.is_closing, true) {
            let _has_ended = self.poll_answers(cx);
            if !self.is_open {
                // A task that has not got the run yet ends without it.
                self.state = State::Over;
            }
            if let State::Running { .. } = self.state {
                let status = match reason {
                    None => RunStatus::Succeeded,
                    Some(reason) => RunStatus::Failed { reason: reason.to_owned() },
                };
                self.ask(Request::Close { status });
            }
        }
        self.poll_answers(cx)
    }
}

/// The task that has the run in the store.
struct Tending<R> {
    store: R,
    task: String,
    recovery: Recovery,
    holder: String,
}

impl<R: Store> Tending<R> {
    async fn run(self, mut asked: UnboundedReceiver<Request>, answering: UnboundedSender<Answer>) {
        let ended = match self.open(&answering).await {
            Err(error) => Err(error),
            Ok(()) => {
                let _ = answering.send(Answer::Opened);
                let renewed = self.renew();
                let worked = self.work(&mut asked, &answering);
                let ended = tokio::select! {
                    biased;
                    error = renewed => Err(error),
                    ended = worked => ended,
                };
                let status = match &ended {
                    Ok(status) => status.clone(),
                    Err(error) => RunStatus::Failed { reason: error.to_string() },
                };
                self.close(&status).await;
                ended
            }
        };
        if let Err(error) = ended {
            // Whoever has dropped the run does not want to know.
            let _ = answering.send(Answer::Failed(error));
        }
    }

    /// Takes the run, once nobody else has it; gives up where nobody wants it any more.
    async fn open(&self, answering: &UnboundedSender<Answer>) -> Result<(), StoreError> {
        let Self { store, task, recovery: Recovery { run_id, lease, wait }, holder } = self;
        let (begun, mut is_waiting) = (Instant::now(), false);
        loop {
            let opened = store.open_run(run_id, task, holder, *lease).await;
            match &opened {
                Err(StoreError::Held { holder, .. }) if begun.elapsed() < *wait => {
                    if !mem::replace(&mut is_waiting, true) {
                        info!(target: "async_map_task", task, run_id, holder, "waiting for the holder of the run");
                    }
                }
                _ => return opened,
            }
            let patience = PATIENCE.min(wait.saturating_sub(begun.elapsed()));
            if timeout(patience, answering.closed()).await.is_ok() {
                return opened;
            }
        }
    }

    /// Renews the lease for as long as it can. A store that fails has until the lease is over.
    async fn renew(&self) -> StoreError {
        let Self { store, task, recovery: Recovery { run_id, lease, .. }, holder } = self;
        let mut renewed = Instant::now();
        loop {
            sleep(*lease / 3).await;
            let asked = Instant::now();
            match timeout_at(renewed + *lease, store.renew_run(run_id, holder, *lease)).await {
                Ok(Ok(())) => renewed = asked,
                Ok(Err(error @ StoreError::Database { .. })) if renewed.elapsed() < *lease => {
                    warn!(target: "async_map_task", task, run_id, %error, "the lease was not renewed, will retry");
                }
                Ok(Err(error)) => return error,
                Err(_) => {
                    let waited = asked.elapsed();
                    return StoreError::lease_lost(run_id, holder, LeaseLoss::NotRenewed { waited });
                }
            }
        }
    }

    /// Does what it is asked for, until it is told how the run has ended.
    async fn work(
        &self,
        asked: &mut UnboundedReceiver<Request>,
        answering: &UnboundedSender<Answer>,
    ) -> Result<RunStatus, StoreError> {
        let mut requests = Vec::with_capacity(MOST_AT_ONCE);
        while asked.recv_many(&mut requests, MOST_AT_ONCE).await > 0 {
            let (mut records, mut page, mut status) = (Vec::new(), None, None);
            for request in requests.drain(..) {
                match request {
                    Request::Keep(entry) => records.push(self.record(entry)),
                    Request::Page { from } => page = Some(from),
                    Request::Close { status: end } => status = Some(end),
                }
            }
            if !records.is_empty() {
                self.store.commit(&self.recovery.run_id, &self.holder, &records).await?;
                let _ = answering.send(Answer::Kept(records.len()));
            }
            if let Some(from) = page {
                let _ = answering.send(Answer::Page(self.read(from).await?));
            }
            if let Some(status) = status {
                return Ok(status);
            }
        }
        Ok(RunStatus::Failed { reason: "the run was dropped".to_owned() })
    }

    async fn read(&self, from: u64) -> Result<Vec<Record>, StoreError> {
        let page = self.store.successes(&self.recovery.run_id, from, PAGE).await?;
        for record in &page {
            if let Recorded::Succeeded { output } = &record.recorded {
                output.open(&[&self.recovery.run_id, &record.index.to_string(), &record.item_hash])?;
                if !has_this_format(&record.item_hash) {
                    return Err(StoreError::OtherFormat { run_id: self.recovery.run_id.clone() });
                }
            }
        }
        Ok(page)
    }

    fn record(&self, entry: Entry) -> Record {
        let Entry { index, item_hash, attempts, elapsed, result } = entry;
        let recorded = match result {
            Ok(json) => {
                let output = Sealed::seal(json, &[&self.recovery.run_id, &index.to_string(), &item_hash]);
                Recorded::Succeeded { output }
            }
            Err(message) => Recorded::Failed { message },
        };
        Record { index: index as u64, item_hash, attempts, elapsed, recorded }
    }

    /// Gives the run back. What it has done is durable already, so that a failure here is only a delay for the next one.
    async fn close(&self, status: &RunStatus) {
        let Self { store, task, recovery: Recovery { run_id, .. }, holder } = self;
        if let Err(error) = store.close_run(run_id, holder, status).await {
            warn!(target: "async_map_task", task, run_id, %error, "the run was not given back and is held until its lease is over");
        }
    }
}
