//! The state that the driver and all workers share.

use super::items::{Items, ItemsOf, Release};
use super::output::outcomes::Outcomes;
use super::running::{Parts, Setup};
use super::scheduler::batches::BatchOptions;
use super::scheduler::{Scheduler, Setting};
use super::user::source::Source;
use super::{Mode, Work};
use crate::config::Config;
use crate::error::ConfigError;
use crate::rt::{Instant, Mutex};

use super::outlined::Outlined;
use super::persist::durability::{Durability, Persist};
use super::persist::durable::redo_error;
use super::user::call::Call;
use super::user::hooks::Hooks;

/// The state that the driver and all workers share: a scheduler, which is the same for all runs, and the items.
///
/// A worker knows the type of its items: the start and the end of an attempt are compiled for each run. The decisions work on a
/// `State<dyn Items>`, and are compiled once.
///
/// Aligned so that it shares no cache line with the mutex word; waiters then do not invalidate the holder's data.
#[repr(align(128))]
pub(super) struct State<I: Release + ?Sized> {
    pub(super) scheduler: Scheduler,
    pub(super) items: I,
}

/// The state of a run with items of any type, behind its lock.
pub(super) type AnyState<'a> = Mutex<State<dyn Items + 'a>>;

/// Sends the account of a dropped run to the handle or the stream that may still await it. Workers on other threads keep the
/// state while they are in the middle of a poll, so the account contains all their work.
impl<I: Release + ?Sized> Drop for State<I> {
    fn drop(&mut self) {
        self.items.release(&mut self.scheduler);
    }
}

/// Returns an error if an option does not fit a run of batches.
fn invalid_batches(options: &BatchOptions, keyed: bool) -> Option<ConfigError> {
    let &BatchOptions { size, most_weight, is_weighted, .. } = options;
    if size == 0 {
        return Some(ConfigError::new("map_batches", "a size of 0", "a size of at least 1"));
    }
    if most_weight == Some(0) {
        return Some(ConfigError::new("batch_weight", "a weight of 0", "a weight of at least 1"));
    }
    if is_weighted {
        let allowed = "batch_weight, because concurrency counts the calls of a run of batches";
        return Some(ConfigError::new("weight", "a run of batches", allowed));
    }
    let allowed = "used without batches, because one call has items of several keys";
    keyed.then(|| ConfigError::new("limit_per", "a run of batches", allowed))
}

/// Returns an error if a setting of the task does not fit the run.
fn invalid_setting<I, T, E>(
    config: &Config,
    one_attempt: bool,
    promised: Option<usize>,
    keyed: bool,
    batches: Option<&BatchOptions>,
    store: Option<&Durability<I, T, E>>,
) -> Option<ConfigError> {
    if one_attempt && config.retry.retries > 0 {
        let allowed = "0 with map_once, because its items cannot be retried";
        return Some(ConfigError::new("retries", config.retry.retries, allowed));
    }
    if let Some(error) = batches.and_then(|options| invalid_batches(options, keyed)) {
        return Some(error);
    }
    let store = store?;
    if store.is_named() && config.name.as_deref().unwrap_or_default().is_empty() {
        // The default is a type name, which the closures of one function share.
        let allowed = "set with .name(..), because recover and cache find stored outputs by it";
        return Some(ConfigError::new("name", "no name", allowed));
    }
    let previous = store.previous.as_ref()?;
    if store.commit_log.is_some() {
        let allowed = "used without recover, whose store has the earlier outputs";
        return Some(ConfigError::new("redo", "a run with recover", allowed));
    }
    let found = promised.filter(|promised| !previous.can_be(*promised))?;
    Some(redo_error(found, previous.total()))
}

impl<W: Work> State<ItemsOf<W>> {
    pub(super) fn new(setup: Setup<W>, now: Instant) -> Self {
        let Setup { source, parts, options, notice } = setup;
        let Parts { call, hooks, sink, mut outcomes, mut store } = parts;
        let promised = source.promised_total();
        outcomes.expect(promised);
        let observed = hooks.observer().is_some() || !options.config.observers.is_empty();
        let timed = W::Outcomes::ARE_TIMED || W::Store::KEEPS || observed;
        let invalid_setting = invalid_setting(
            &options.config,
            W::Call::ONE_ATTEMPT,
            promised,
            W::Hooks::KEYED,
            options.batches.as_ref(),
            store.durability().map(|store| &*store),
        );
        let (is_durable, holds, keyed) = (W::Store::KEEPS, W::Hooks::HOLDS, W::Hooks::KEYED);
        let setting =
            Setting { options, promised, timed, observed, is_durable, holds, keyed, invalid_setting };
        let is_invalid = setting.invalid_setting.is_some();
        let mut scheduler = Scheduler::new(setting, now, W::Mode::PARALLEL);
        if let (true, Some(previous)) =
            (is_invalid, store.durability().and_then(|store| store.previous.as_ref()))
        {
            scheduler.expect_again(previous.total());
        }
        let waiting = Outlined::default();
        Self { scheduler, items: ItemsOf { source, call, hooks, waiting, outcomes, store, notice, sink } }
    }
}
