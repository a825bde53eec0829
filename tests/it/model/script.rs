//! Random runs: the attempts of each item, the settings of the task, the kind of source.

use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;

use super::Millis;

/// The end of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Ok,
    Err { retryable: bool, retry_after: Option<Millis> },
    Panic,
    PanicWhileBuilding,
    Never,
}

/// The script of one attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    /// The number of times that it yields before it sleeps. An attempt that does not sleep does not yield either, so two
    /// attempts end at one instant only if a common limit ends them.
    pub(super) yields: u8,
    pub(super) sleep: Millis,
    pub(super) end: End,
    /// Its reaction when its token is cancelled: it ends this much later, in this way.
    pub(super) when_told: Option<(Millis, End)>,
}

/// The kind of source.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A list of known length.
    List,
    /// A list with a length that is not known before its end.
    UnsizedList,
    /// A stream: item `i` arrives at least this much after item `i - 1`.
    Stream { gaps: Vec<Millis> },
    /// A stream that ends with an error instead of the item at this index.
    Failing { gaps: Vec<Millis>, at: usize },
}

#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// The attempts of each item; the last one is repeated.
    pub(super) items: Vec<Vec<Attempt>>,
    pub(super) source: Source,
    pub(super) cancel_at: Option<Millis>,
    pub(super) concurrency: usize,
    pub(super) look_ahead: usize,
    pub(super) retries: u32,
    pub(super) delay: Millis,
    pub(super) multiplier: u32,
    pub(super) max_delay: Millis,
    pub(super) per_attempt: Option<Millis>,
    pub(super) per_item: Option<Millis>,
    pub(crate) per_run: Option<Millis>,
    pub(super) grace: Option<Millis>,
    /// In hundredths.
    pub(super) min_ratio: Option<u32>,
    pub(super) min_successes: Option<usize>,
    pub(super) max_failures: Option<usize>,
    pub(super) early_success: bool,
    pub(super) fail_fast: bool,
}

impl Case {
    /// The script of attempt `number` of item `index`.
    pub(super) fn attempt(&self, index: usize, number: u32) -> Attempt {
        let attempts = &self.items[index];
        attempts[attempts.len().min(number as usize) - 1]
    }
}

/// Long enough that no two sums of them are equal by chance.
pub(super) const LONG: Millis = 100_000_000;

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        8 => Just(End::Ok),
        6 => (prop::bool::weighted(0.85), weighted(0.15, prop_oneof![Just(0), 1..LONG]))
            .prop_map(|(retryable, retry_after)| End::Err { retryable, retry_after }),
        1 => Just(End::Panic),
        1 => Just(End::PanicWhileBuilding),
        1 => Just(End::Never),
    ]
}

/// Returns `true` if an attempt may end at the instant at which it begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Start {
    MayEnd,
    TakesTime,
}

fn attempt(start: Start) -> impl Strategy<Value = Attempt> {
    let at_once = if start == Start::MayEnd { 0..1 } else { 1..LONG / 20 };
    let sleep = prop_oneof![1 => at_once, 4 => 1..LONG, 1 => 1..LONG / 20];
    let when_told = weighted(0.4, (prop_oneof![Just(0), 1..LONG / 4], end()));
    (0..3_u8, sleep, end(), when_told).prop_map(|(yields, sleep, end, when_told)| {
        let yields = if sleep == 0 { 0 } else { yields };
        // A future cannot panic while it is built when its token is cancelled.
        let when_told = when_told.filter(|(_, end)| *end != End::PanicWhileBuilding);
        Attempt { yields, sleep, end, when_told }
    })
}

fn source(items: usize) -> impl Strategy<Value = Source> {
    let gaps = move || prop::collection::vec(prop_oneof![2 => Just(0), 1 => 1..LONG / 4], items);
    prop_oneof![
        4 => Just(Source::List),
        1 => Just(Source::UnsizedList),
        2 => gaps().prop_map(|gaps| Source::Stream { gaps }),
        1 => (gaps(), 0..=items).prop_map(|(gaps, at)| Source::Failing { gaps, at }),
    ]
}

pub(crate) fn case() -> impl Strategy<Value = Case> {
    case_with(Start::MayEnd)
}

pub(super) fn case_with(start: Start) -> impl Strategy<Value = Case> {
    let items = prop::collection::vec(prop::collection::vec(attempt(start), 1..4), 0..14);
    let retries = (0..4_u32, prop_oneof![1 => Just(0), 4 => 1..LONG], 1..4_u32, 1..LONG);
    let look_ahead = prop_oneof![1 => Just(256), 2 => 1..6_usize];
    let limits = (
        weighted(0.5, LONG / 10..LONG),
        weighted(0.4, LONG / 10..2 * LONG),
        weighted(0.2, LONG..6 * LONG),
        weighted(0.5, 1..LONG / 4),
    );
    let criteria = (
        weighted(0.7, prop_oneof![2 => Just(0), 1 => Just(100), 3 => 0..=100_u32]),
        weighted(0.2, 0..6_usize),
        weighted(0.25, 0..6_usize),
        prop::bool::weighted(0.25),
        prop::bool::weighted(0.15),
    );
    items.prop_flat_map(move |items| {
        let source = source(items.len());
        let places = (select(vec![1_usize, 2, 3, 5, 20]), look_ahead.clone());
        let run = (Just(items), source, weighted(0.15, 1..4 * LONG), places);
        (run, retries.clone(), limits.clone(), criteria.clone()).prop_map(
            |((items, source, cancel_at, (concurrency, look_ahead)), retry, mut limits, criteria)| {
                // The limit of an attempt is at most that of its item.
                if let (Some(attempt), Some(item)) = (&mut limits.0, &mut limits.1) {
                    if attempt > item {
                        std::mem::swap(attempt, item);
                    }
                }
                let any_criterion = criteria.0.is_some() || criteria.1.is_some() || criteria.2.is_some();
                Case {
                    items,
                    source,
                    cancel_at,
                    concurrency,
                    look_ahead,
                    retries: retry.0,
                    delay: retry.1,
                    multiplier: retry.2,
                    max_delay: retry.3,
                    per_attempt: limits.0,
                    per_item: limits.1,
                    // An attempt that never ends needs some limit. A grace must not be longer than this limit.
                    per_run: limits.2.or((limits.0, limits.1).eq(&(None, None)).then_some(50 * LONG)),
                    grace: limits.3,
                    min_ratio: criteria.0,
                    min_successes: criteria.1,
                    max_failures: criteria.2,
                    // It has no effect without a criterion.
                    early_success: criteria.3 && any_criterion,
                    fail_fast: criteria.4,
                }
            },
        )
    })
}
