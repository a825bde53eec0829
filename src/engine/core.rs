//! What all lanes and the driver share: which item starts next, and what became of each.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::attempt::{Watch, panic_message};
use super::call::Call;
use super::clock::{Clock, deadline, earliest};
use super::hooks::Hooks;
use super::job::{Desk, Ended, Job, Retry};
use super::source::Source;
use super::waiting::Waiting;
use super::{Types, Work, trace};
use crate::config::Config;
use crate::context::{ItemContext, Signal};
use crate::error::{ConfigError, FailureReason};
use crate::observe::Event;
use crate::outcome::ItemError;

/// How many attempts one poll of the driver may begin before it yields to its executor.
const STARTS_PER_POLL: u32 = 128;

/// How many bytes of result slots are reserved ahead, however many slots the source says it will need.
const RESERVED_BYTES: usize = 1 << 20;

/// What a lane does next.
pub(super) enum Turn {
    /// It makes the attempt that is on its desk.
    Attempt,
    /// It waits until it is woken.
    Rest,
    /// It ends: there will be no more work.
    Retire,
}

/// What the driver does next.
pub(super) enum Admission {
    /// It wakes this resting lane, which has work now.
    Wake(Waker),
    /// It opens a new lane, which has work at once.
    Open { seat: usize, permit: OwnedSemaphorePermit },
    /// It yields: this poll has begun enough attempts.
    Yield,
    /// It waits.
    Wait,
    /// It looks at the cause that has just stopped the run.
    Stop,
    /// It ends: every item has settled.
    Finish,
}

/// Why no further attempt begins.
pub(super) enum Stop {
    EarlySuccess,
    Failed(FailureReason),
}

/// The source as it answered last.
#[derive(PartialEq, Eq)]
pub(super) enum SourceState {
    Open,
    /// It had nothing; it is not asked again in this poll of the driver.
    Stalled,
    Ended,
}

/// A lane as the admission sees it.
#[derive(Default)]
struct Seat {
    waker: Option<Waker>,
    resting: bool,
}

#[derive(Default)]
pub(super) struct Tally {
    pub(super) started: usize,
    pub(super) successes: usize,
    pub(super) failures: usize,
    pub(super) retries: usize,
    pub(super) timeouts: usize,
    pub(super) panics: usize,
    pub(super) first_failure: Option<usize>,
}

pub(super) struct Core<W: Types> {
    pub(super) config: Arc<Config>,
    /// The name of the run.
    pub(super) name: String,
    source: W::Source,
    call: W::Call,
    pub(super) hooks: W::Hooks,
    token: Option<CancellationToken>,

    pub(super) source_state: SourceState,
    /// The driver's own waker: the source and nothing else is polled with it.
    driver: Waker,
    /// The number of items, while the source keeps what its exact size hint has promised.
    pub(super) total: Option<usize>,
    pub(super) pulled: usize,
    /// An item that the driver has pulled for a lane that it has woken.
    pub(super) handed: Option<(usize, W::Item)>,
    pub(super) waiting: Waiting<Retry<W::Item, W::Error>>,
    seats: Vec<Seat>,
    resting: Vec<usize>,
    starts_left: u32,
    pub(super) running: usize,

    pub(super) clock: Clock,
    pub(super) run_deadline: Option<Instant>,
    pub(super) stop: Option<Stop>,
    pub(super) tally: Tally,
    pub(super) results: Vec<Option<W::Output>>,
    pub(super) errors: BTreeMap<usize, ItemError<W::Error>>,
}

impl<W: Work> Core<W> {
    pub(super) fn new(
        config: Arc<Config>,
        name: String,
        parts: (W::Source, W::Call, W::Hooks),
        token: Option<CancellationToken>,
        now: Instant,
    ) -> Self {
        let (source, call, hooks) = parts;
        let total = match source.size_hint() {
            (least, Some(most)) if least == most => Some(most),
            _ => None,
        };
        let stop = (W::Call::ONE_ATTEMPT && config.retry.retries > 0).then(|| {
            let allowed = "0 with map_once, whose items cannot be tried again";
            Stop::Failed(FailureReason::Config(ConfigError::new("retries", config.retry.retries, allowed)))
        });
        Self {
            run_deadline: config.run_timeout.map(|limit| deadline(now, limit)),
            config,
            name,
            source,
            call,
            hooks,
            token,
            source_state: SourceState::Open,
            driver: Waker::noop().clone(),
            total,
            pulled: 0,
            handed: None,
            waiting: Waiting::new(),
            seats: Vec::new(),
            resting: Vec::new(),
            starts_left: 0,
            running: 0,
            clock: Clock::new(),
            stop,
            tally: Tally::default(),
            results: Vec::with_capacity(
                total.unwrap_or(0).min(RESERVED_BYTES / size_of::<Option<W::Output>>().max(1)),
            ),
            errors: BTreeMap::new(),
        }
    }

    /// Begins a poll of the driver: looks at the time and at the caller's token. Says whether these,
    /// or what came before, have stopped the run.
    pub(super) fn begin_poll(&mut self, waker: &Waker) -> bool {
        self.driver.clone_from(waker);
        self.starts_left = STARTS_PER_POLL;
        if self.source_state == SourceState::Stalled {
            self.source_state = SourceState::Open;
        }
        self.heed_token();
        if self.run_deadline.is_none() && self.waiting.is_empty() {
            return self.stop.is_some();
        }
        let now = self.clock.coarse();
        if let (Some(deadline), Some(limit)) = (self.run_deadline, self.config.run_timeout) {
            if now >= deadline {
                self.stop(Stop::Failed(FailureReason::TimedOut { limit }));
            }
        }
        let stopped = self.stop.is_some();
        self.waiting.release(now);
        while let Some(Retry { job, error, .. }) = self.waiting.pop_given_up(now) {
            self.fail(&job, error, "no place was free before the item's time was up");
        }
        stopped
    }

    /// When the driver must look again, if nothing wakes it before.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        earliest(self.run_deadline, self.waiting.next_deadline())
    }

    /// Finds a place for the next item that may start, or says why there is none.
    pub(super) fn admit(&mut self, permits: &Arc<Semaphore>) -> Admission {
        if self.is_finished() {
            return Admission::Finish;
        }
        if self.resting.is_empty() && permits.available_permits() == 0 {
            return Admission::Wait;
        }
        if self.starts_left == 0 {
            return Admission::Yield;
        }
        if !self.waiting.has_due() {
            if !self.admits_new_items() {
                return Admission::Wait;
            }
            if self.handed.is_none() {
                self.heed_token();
                if self.stop.is_none() {
                    self.handed = self.pull();
                }
                if self.stop.is_some() {
                    return Admission::Stop;
                }
            }
            if self.handed.is_none() {
                // The end of the source may have been the end of the run.
                return if self.is_finished() { Admission::Finish } else { Admission::Wait };
            }
        }
        match self.resting.pop().and_then(|seat| self.seats.get_mut(seat)) {
            Some(seat) => {
                seat.resting = false;
                seat.waker.clone().map_or(Admission::Wait, Admission::Wake)
            }
            None => match Arc::clone(permits).try_acquire_owned() {
                Ok(permit) => {
                    self.seats.push(Seat::default());
                    Admission::Open { seat: self.seats.len() - 1, permit }
                }
                Err(_) => Admission::Wait,
            },
        }
    }

    /// Takes what became of a lane's attempt and gives the lane its next one.
    pub(super) fn turn(
        &mut self,
        seat: usize,
        ended: Option<Ended<W>>,
        mut desk: Desk<'_, W>,
        waker: &Waker,
    ) -> Turn {
        // A lane that rests until it is called may be woken by what an earlier attempt left behind.
        if self.seats.get(seat).is_some_and(|seat| seat.resting) {
            return Turn::Rest;
        }
        if let Some(ended) = ended {
            self.end_attempt(desk.job, ended);
        }
        loop {
            self.heed_token();
            if self.stop.is_some() {
                *desk.job = None;
                return Turn::Retire;
            }
            let Some(item) = self.next_item(desk.job) else {
                *desk.job = None;
                if self.stop.is_some() || self.is_exhausted() {
                    return Turn::Retire;
                }
                self.rest(seat, waker);
                return Turn::Rest;
            };
            match self.begin_attempt(&mut desk, item) {
                Ok(()) => return Turn::Attempt,
                Err(error) => self.end_attempt(desk.job, Err(error)),
            }
        }
    }

    /// The item that starts next: one that is ready for its retry before one that is new.
    fn next_item(&mut self, slot: &mut Option<Job<W::Item>>) -> Option<W::Item> {
        if self.starts_left == 0 {
            return None;
        }
        if let Some(Retry { mut job, item, .. }) = self.waiting.pop_due() {
            job.attempt = job.attempt.saturating_add(1);
            *slot = Some(job);
            self.tally.retries += 1;
            return Some(item);
        }
        if !self.admits_new_items() {
            return None;
        }
        let (index, item) = match self.handed.take() {
            Some(handed) => handed,
            None => self.pull()?,
        };
        *slot = Some(Job { index, attempt: 1, kept: None, started: None, span: trace::item_span(index) });
        self.tally.started += 1;
        self.results.push(None);
        if let Some(observer) = self.hooks.observer() {
            observer.on_event(&Event::ItemStarted { index });
        }
        Some(item)
    }

    /// Whether no item will ever start again.
    fn is_exhausted(&self) -> bool {
        self.source_state == SourceState::Ended && self.handed.is_none() && self.waiting.is_empty()
    }

    /// Whether every item has settled.
    fn is_finished(&self) -> bool {
        self.running == 0 && self.is_exhausted()
    }

    /// Whether so few items wait for their retry that another may be started.
    fn admits_new_items(&self) -> bool {
        self.waiting.len() < self.config.concurrency
    }

    fn pull(&mut self) -> Option<(usize, W::Item)> {
        if self.source_state != SourceState::Open {
            return None;
        }
        match self.source.poll_pull(&mut Context::from_waker(&self.driver)) {
            Poll::Ready(Some(Ok(item))) => {
                let index = self.pulled;
                self.pulled += 1;
                if self.total.is_some_and(|total| total < self.pulled) {
                    self.total = None;
                }
                Some((index, item))
            }
            Poll::Ready(Some(Err(error))) => {
                self.source_state = SourceState::Ended;
                self.stop(Stop::Failed(FailureReason::Source(error)));
                None
            }
            Poll::Ready(None) => {
                self.source_state = SourceState::Ended;
                None
            }
            Poll::Pending => {
                self.source_state = SourceState::Stalled;
                None
            }
        }
    }

    fn rest(&mut self, seat: usize, waker: &Waker) {
        self.resting.push(seat);
        if let Some(seat) = self.seats.get_mut(seat) {
            seat.resting = true;
            match &mut seat.waker {
                Some(known) => known.clone_from(waker),
                None => seat.waker = Some(waker.clone()),
            }
        }
    }

    /// Calls the map function. It is the caller's code, so it may panic.
    fn begin_attempt(&mut self, desk: &mut Desk<'_, W>, item: W::Item) -> Result<(), ItemError<W::Error>> {
        let Some(job) = desk.job else { return Ok(()) };
        self.starts_left -= 1;
        self.running += 1;
        *desk.watch = self.watch(job);
        let (config, call, run_deadline) = (&*self.config, &self.call, self.run_deadline);
        let Job { index, attempt, ref mut kept, started, ref span } = *job;
        let may_retry = config.retry.allows_after(attempt);
        let (future, watch, signal) = (&mut desk.attempt, &*desk.watch, &mut *desk.signal);
        let context = || {
            Signal::renew(signal);
            let limit = watch.limit(config, started).map(|limit| limit.deadline());
            let deadline = earliest(limit, run_deadline);
            ItemContext { index, attempt, is_last_attempt: !may_retry, deadline, signal: Arc::clone(signal) }
        };
        let _entered = span.enter();
        let built = catch_unwind(AssertUnwindSafe(|| {
            if may_retry {
                *kept = call.again(&item);
            }
            future.set(Some(call.call(context, item)));
        }));
        built.map_err(|payload| ItemError::Panicked { message: panic_message(&*payload), attempts: attempt })
    }

    /// Notes when an attempt begins, where a limit or an observer needs to know.
    #[inline]
    fn watch(&mut self, job: &mut Job<W::Item>) -> Watch {
        if self.hooks.observer().is_some() {
            let now = self.clock.read();
            job.started.get_or_insert(now);
        }
        if self.config.first_limit.is_none() {
            return Watch::Unlimited;
        }
        let now = self.clock.coarse();
        job.started.get_or_insert(now);
        Watch::Begun(now)
    }

    /// Stops the run if the caller's token is cancelled.
    #[inline]
    fn heed_token(&mut self) {
        if self.token.as_ref().is_some_and(CancellationToken::is_cancelled) {
            self.stop(Stop::Failed(FailureReason::Cancelled));
        }
    }
}
