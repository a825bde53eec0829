//! One run: it pulls items, admits attempts, settles items and judges the run.
//!
//! Only the parts that hold or call something of the caller's are compiled for each run: mainly `worker`, `items`, `settle`,
//! `user`, `output` and, with a store, `persist`. The decisions are in `driver`, `admission`, `next_step` and `scheduler`, which
//! are compiled once.

mod admission;
pub(crate) mod background;
mod batch;
mod caught_drop;
mod driver;
mod drop_notice;
mod ending;
mod events;
mod failure;
mod gather;
pub(crate) mod in_context;
mod items;
mod job;
pub(crate) mod mode;
mod outlined;
pub(crate) mod output;
pub(crate) mod persist;
pub(crate) mod plan;
mod relay;
pub(crate) mod running;
mod scheduler;
mod settle;
pub(crate) mod shutdown;
mod slots;
mod state;
mod state_guard;
mod timer;
mod trace;
pub(crate) mod user;
pub(crate) mod worker;
pub(crate) mod wraps;

use std::panic::resume_unwind;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tracing::Span;

use self::driver::{DriverCore, Rounds, Workers};
use self::drop_notice::Notice;
pub(crate) use self::ending::Ending;
use self::items::ItemsOf;
use self::mode::PollWorkers;
use self::output::outcomes::Outcomes;
use self::output::sink::Deliver;
pub(crate) use self::plan::{Drive, Mode, Plan, Work};
use self::running::Setup;
use self::scheduler::Verdict;
use self::state::State;
use self::state_guard::StateGuard;
use self::worker::{ParallelParts, Worker};
use crate::error::BoxError;
use crate::lock::lock;
use crate::panic_payload::{Payload, discard};
use crate::rt::{Instant, Mutex};

/// Drives one run. It owns all parts of the run, so that dropping it leaves nothing behind.
pub(crate) struct Driver<W: Plan> {
    core: DriverCore,
    /// Declared before the state, because the attempts in the workers are dropped before the values that they may use.
    workers: <W::Mode as Mode>::Workers<W>,
    state: Arc<Mutex<State<ItemsOf<W>>>>,
}

impl<W: Drive> Driver<W> {
    /// Creates the driver and starts the clock of the run.
    pub(crate) fn new(setup: Setup<W>) -> Self {
        let mut state = State::new(setup, Instant::now());
        let core = DriverCore::new(&mut state.scheduler, &mut state.items);
        Self { core, workers: Default::default(), state: Arc::new(Mutex::new(state)) }
    }

    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut impl Deliver<W::Output, W::Error>,
    ) -> Poll<Ending<Rest<W>>> {
        let mut workers = WorkersOf { workers: &mut self.workers, state: &self.state, sink };
        let polled = ready!(self.core.poll(cx, &*self.state, &mut workers));
        let (notice, rest) = self.take_rest();
        if let Some(mut notice) = notice {
            notice.withdraw();
        }
        match polled {
            Ok(verdict) => Poll::Ready(Ending { verdict, rest }),
            Err(payload) => resume_unwind(payload),
        }
    }
}

/// The workers of a run, and its sink.
struct WorkersOf<'a, W: Plan, D> {
    workers: &'a mut <W::Mode as Mode>::Workers<W>,
    state: &'a Arc<Mutex<State<ItemsOf<W>>>>,
    sink: &'a mut D,
}

impl<W: Drive, D: Deliver<W::Output, W::Error>> Workers for WorkersOf<'_, W, D> {
    fn open(&mut self, id: usize, span: &Span) {
        let (parallel, config) = {
            let state = &*lock(self.state);
            let parallel = if W::Mode::PARALLEL { ParallelParts::new(state) } else { None };
            (parallel, Arc::clone(&state.scheduler.config))
        };
        let worker = Worker::new(Arc::clone(self.state), config, id, parallel);
        W::Mode::open(self.workers, worker, span);
    }

    fn poll(&mut self, cx: &mut Context<'_>, rounds: &mut dyn Rounds) {
        loop {
            let is_over = match W::Mode::poll_next(self.workers, cx) {
                Poll::Ready(Some(ended)) => !rounds.end_worker(ended),
                Poll::Pending => !rounds.may_poll_again(),
                Poll::Ready(None) => true,
            };
            if is_over {
                return;
            }
        }
    }

    fn count(&self) -> usize {
        W::Mode::count(self.workers)
    }

    fn watch_limits(&mut self) {
        W::Mode::for_each(self.workers, Worker::watch_limit);
    }

    fn stop(&mut self) {
        W::Mode::for_each(self.workers, Worker::stop);
    }

    fn poll_clear(&mut self, cx: &mut Context<'_>) -> Poll<Option<Payload>> {
        W::Mode::poll_clear(self.workers, cx)
    }

    fn poll_sink(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if !D::TAKES {
            return Poll::Ready(Ok(()));
        }
        let mut guard = StateGuard::new(self.state);
        if guard.get().scheduler.sink_failed {
            return Poll::Ready(Ok(()));
        }
        guard.unlock();
        self.sink.poll_deliver(cx, || {
            let outcome = guard.get().items.outcomes.take();
            guard.unlock();
            outcome
        })
    }
}

/// The part of the outcomes of a run that is left at its end.
pub(crate) type Rest<W> = <<W as Plan>::Outcomes as Outcomes<<W as Plan>::Output, <W as Plan>::Error>>::Rest;

/// A parallel worker may be in the middle of a poll, and keeps the state until that poll ends. It starts nothing more. The
/// permits that the driver held do not stay in use until then.
impl<W: Plan> Drop for Driver<W> {
    fn drop(&mut self) {
        self.core.panic.take().into_iter().for_each(discard);
        if let Some(verdict) = self.core.verdict.take() {
            self.pass_on(verdict);
        }
        self.core.sound_alarm();
        if W::Mode::PARALLEL {
            state_guard::abandon(&self.state);
        }
    }
}

impl<W: Plan> Driver<W> {
    /// Forwards an ending that the run can no longer return.
    #[cold]
    fn pass_on(&self, verdict: Verdict) {
        if let (Some(mut notice), rest) = self.take_rest() {
            notice.pass_on(Ending { verdict, rest });
        }
    }

    /// Takes the notice and the rest of the outcomes out of the state.
    #[inline(never)]
    fn take_rest(&self) -> (Option<Box<dyn Notice<Rest<W>>>>, Rest<W>) {
        let mut guard = lock(&self.state);
        let items = &mut guard.items;
        (items.notice.take(), items.outcomes.take_rest())
    }
}
