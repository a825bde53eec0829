//! The cache backend of one run: the look-ups and the writes, as its driver sees them.

use std::collections::HashSet;
use std::future::poll_fn;
use std::mem;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tracing::{Instrument, Span};

use super::Options;
use super::store_task::{Answer, Load, Request, StoreTask};
use crate::engine::persist::lookups::CacheBackend;
use crate::store::Store;

/// The maximum number of writes in progress. At this number no further item is looked up.
const MAX_WRITES: usize = 256;

/// The maximum number of bytes of these writes. At this number no further item is looked up.
const MAX_WRITE_BYTES: usize = 16 << 20;

/// The maximum number of items that wait for the computations of others. At this number no further item is looked up.
const MAX_WAITING: usize = 256;

/// Looks up outputs in a store, and writes them there. A task does both, whether or not the run is polled, so that an
/// unpolled run blocks nothing in the store.
///
/// If this is dropped, the task stores the computed outputs, releases the other claims, and ends.
pub(super) struct StoreBackend<R> {
    state: State<R>,
    /// The items with a look-up in progress.
    asked: HashSet<usize>,
    /// The task's last report of its load.
    load: Load,
    /// The number of writes requested since that report.
    new_writes: usize,
    /// The bytes of these writes.
    new_bytes: usize,
}

enum State<R> {
    Ready(Box<StoreTask<R>>),
    Running {
        requests: UnboundedSender<Request>,
        answers: UnboundedReceiver<Answer>,
        task: JoinHandle<()>,
    },
    /// No further requests are sent.
    Closing {
        answers: UnboundedReceiver<Answer>,
        task: JoinHandle<()>,
    },
    Over,
}

impl<R: Store> StoreBackend<R> {
    pub(super) fn new(store: R, task: String, options: Options) -> Self {
        let state = State::Ready(Box::new(StoreTask::new(store, task, options)));
        Self { state, asked: HashSet::new(), load: Load::default(), new_writes: 0, new_bytes: 0 }
    }

    fn ask(&mut self, request: Request) {
        if let State::Ready(_) = self.state {
            if let State::Ready(mut store_task) = mem::replace(&mut self.state, State::Over) {
                let ((requests, mut asked), (answering, answers)) =
                    (unbounded_channel(), unbounded_channel());
                let work = poll_fn(move |cx| store_task.poll(&mut asked, &answering, cx));
                let task = tokio::spawn(work.instrument(Span::current()));
                self.state = State::Running { requests, answers, task };
            }
        }
        if let State::Running { requests, .. } = &self.state {
            // A task that was dropped with its runtime stores nothing.
            let _ = requests.send(request);
        }
    }

    fn ask_to_write(&mut self, request: Request) {
        self.new_writes += 1;
        self.ask(request);
    }

    /// Returns the next answer, or `None` if there are no more.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Option<Answer>> {
        let (State::Running { answers, task, .. } | State::Closing { answers, task }) = &mut self.state
        else {
            return Poll::Ready(None);
        };
        if let Some(answer) = ready!(answers.poll_recv(cx)) {
            return Poll::Ready(Some(answer));
        }
        let ended = ready!(Pin::new(task).poll(cx));
        self.state = State::Over;
        match ended.map_err(|error| error.try_into_panic()) {
            Err(Ok(payload)) => resume_unwind(payload),
            Ok(()) | Err(Err(_)) => Poll::Ready(None),
        }
    }
}

impl<R: Store> CacheBackend for StoreBackend<R> {
    fn look_up(&mut self, index: usize, item_hash: String) {
        self.asked.insert(index);
        self.ask(Request::LookUp { index, item_hash });
    }

    fn poll_found(&mut self, cx: &mut Context<'_>) -> Poll<(usize, Option<String>)> {
        if let State::Ready(_) = self.state {
            return Poll::Pending;
        }
        while let Some(answer) = ready!(self.poll_answer(cx)) {
            match answer {
                Answer::Found { index, output } => {
                    self.asked.remove(&index);
                    return Poll::Ready((index, output));
                }
                Answer::Load(load) => {
                    self.new_writes = self.new_writes.saturating_sub(load.taken);
                    self.new_bytes = self.new_bytes.saturating_sub(load.taken_bytes);
                    self.load = load;
                }
            }
        }
        // The runtime of the task was shut down. All pending items count as not found.
        let Some(index) = self.asked.iter().next().copied() else { return Poll::Pending };
        self.asked.remove(&index);
        Poll::Ready((index, None))
    }

    fn keep(&mut self, index: usize, output: String) {
        self.new_bytes += output.len();
        self.ask_to_write(Request::Keep { index, output });
    }

    fn release(&mut self, index: usize) {
        self.ask_to_write(Request::Release { index });
    }

    fn is_looking_up(&self) -> bool {
        self.asked.len() > self.load.waiting
    }

    fn has_room(&self, free: usize) -> bool {
        let waiting = self.load.waiting.min(self.asked.len());
        self.asked.len() - waiting < free
            && waiting < MAX_WAITING
            && self.load.writes + self.new_writes < MAX_WRITES
            && self.load.bytes + self.new_bytes < MAX_WRITE_BYTES
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.state = match mem::replace(&mut self.state, State::Over) {
            State::Running { answers, task, .. } => State::Closing { answers, task },
            State::Closing { answers, task } => State::Closing { answers, task },
            State::Ready(_) | State::Over => State::Over,
        };
        while ready!(self.poll_answer(cx)).is_some() {}
        Poll::Ready(())
    }
}
