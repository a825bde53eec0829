//! The journal of a run: its records in a store.

use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{Instrument, Span};

use super::Recovery;
use super::own_runs::{OwnRun, Phase};
use super::store_task::{Answer, Request, StoreTask};
use crate::checkpoint::CheckpointQueue;
use crate::engine::persist::commit_log::{Entry, Journal};
use crate::engine::shutdown::ShutDown;
use crate::error::BoxError;
use crate::panic_payload::into_message;
use crate::store::{Record, Recorded, RunStatus, Store, StoreError};

/// A journal with a task of its own for the store.
pub(super) struct StoreJournal<R> {
    state: State<R>,
    /// The records of the earlier run that were read and not yet recalled, by ascending index.
    known: VecDeque<Record>,
    /// All records below this index were read.
    known_to: usize,
    is_page_asked: bool,
    kept: usize,
    error: Option<StoreError>,
    /// Why the task ended, if it ended without an error of the store.
    lost: Option<Lost>,
    is_open: bool,
    is_closing: bool,
}

enum State<R> {
    Ready(StoreTask<R>, CheckpointQueue<R>),
    Running {
        requests: UnboundedSender<Request>,
        answers: UnboundedReceiver<Answer>,
        task: JoinHandle<()>,
        phase: Arc<watch::Sender<Phase>>,
    },
    Over,
}

/// The end of a task without an error of the store.
enum Lost {
    ShutDown,
    Panicked(String),
}

impl<R: Store> StoreJournal<R> {
    pub(super) fn new(
        store: R,
        task: String,
        recovery: Recovery,
        holder: String,
        checkpoints: CheckpointQueue<R>,
    ) -> Self {
        let state = State::Ready(StoreTask { store, task, recovery, holder }, checkpoints);
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
        if let State::Ready(..) = self.state {
            if let State::Ready(store_task, checkpoints) = mem::replace(&mut self.state, State::Over) {
                let ((requests, asked), (answering, answers)) = (unbounded_channel(), unbounded_channel());
                let own = OwnRun::new(&store_task.holder);
                let phase = own.phase();
                let task = tokio::spawn(
                    store_task.run(own, asked, answering, checkpoints).instrument(Span::current()),
                );
                self.state = State::Running { requests, answers, task, phase };
            }
        }
        if let State::Running { requests, .. } = &self.state {
            // If the task has ended, it has already sent the reason.
            let _ = requests.send(request);
        }
    }

    /// Processes the answers of the task. Returns `Ready` if the task has ended.
    fn poll_answers(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let State::Running { answers, task, .. } = &mut self.state else { return Poll::Ready(()) };
        while let Some(answer) = ready!(answers.poll_recv(cx)) {
            match answer {
                Answer::Opened => self.is_open = true,
                Answer::Page(page) => {
                    let is_last = page.is_empty();
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

    /// Returns the reason why there are no more answers.
    fn failure(&mut self) -> BoxError {
        match (self.error.take(), &self.lost) {
            (Some(error), _) => error.into(),
            (None, Some(Lost::ShutDown)) => ShutDown.into(),
            (None, Some(Lost::Panicked(message))) => format!("the store panicked: {message}").into(),
            (None, None) => "the task that writes to the store has ended".into(),
        }
    }
}

/// Tells the task of a dropped run to give the run back.
impl<R> Drop for StoreJournal<R> {
    fn drop(&mut self) {
        if let State::Running { phase, .. } = &self.state {
            phase.send_if_modified(|phase| {
                let was_running = *phase == Phase::Running;
                if was_running {
                    *phase = Phase::Ending;
                }
                was_running
            });
        }
    }
}

impl<R: Store> Journal for StoreJournal<R> {
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
        if let State::Ready(..) = self.state {
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
                // A task that has not yet acquired the run ends without it.
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
