//! Random runs with every end that a run can have, some of them two at a time under one shared limit.

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;

use super::Millis;
use super::script::{self, Case, LONG, Start};

/// The runs of one case, and the limit that they share.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) runs: Vec<Run>,
    pub(super) shared: Option<Shared>,
}

/// The shared limit: its permits, and their later numbers.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) permits: usize,
    pub(super) changes: Vec<(Millis, usize)>,
}

#[derive(Debug, Clone)]
pub(super) struct Run {
    /// The time at which it begins. Every other time of the run is relative to it.
    pub(super) begin: Millis,
    pub(super) case: Case,
    /// The weight of each item.
    pub(super) weights: Vec<u32>,
    /// `true` if its items run on separate tasks.
    pub(super) parallel: bool,
    pub(super) end: End,
}

/// The way in which a run is started and its outcomes are used.
#[derive(Debug, Clone)]
pub(super) enum End {
    Await,
    ForEach(Taker),
    Stream(Taker),
    /// The signals through its handle, and their times.
    Spawn(Vec<(Millis, Order)>),
}

/// The sink or consumer that takes the outcomes, one after another.
#[derive(Debug, Clone)]
pub(super) struct Taker {
    pub(super) ordered: bool,
    /// The time that each outcome keeps it busy, repeatedly. If this is empty, no outcome does.
    pub(super) naps: Vec<Millis>,
    /// The outcome at which it fails, after its delay. The consumer of a stream does not fail.
    pub(super) fails_at: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Order {
    Concurrency(usize),
    Pause,
    Resume,
    Drain,
    Cancel,
    /// Requests the progress of the run.
    Look,
}

impl Taker {
    pub(super) fn nap(&self, nth: usize) -> Millis {
        // A failure without a delay would be a tie with the items that have just settled.
        let least = if self.fails_at == Some(nth) { LONG / 300 + nth as Millis } else { 0 };
        if self.naps.is_empty() { least } else { self.naps[nth % self.naps.len()].max(least) }
    }
}

impl Run {
    /// The permits that an item needs.
    pub(super) fn weight(&self, index: usize) -> u32 {
        self.weights[index].max(1)
    }

    /// Returns `true` if it is the simplest kind of run: awaited, on one task, without weights.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.end, End::Await) && !self.parallel && self.weights.iter().all(|weight| *weight == 1)
    }

    pub(super) fn taker(&self) -> Option<&Taker> {
        match &self.end {
            End::ForEach(taker) | End::Stream(taker) => Some(taker),
            End::Await | End::Spawn(_) => None,
        }
    }

    pub(super) fn orders(&self) -> &[(Millis, Order)] {
        if let End::Spawn(orders) = &self.end { orders } else { &[] }
    }
}

impl From<Case> for Plan {
    /// One run that is awaited.
    fn from(case: Case) -> Self {
        let weights = vec![1; case.items.len()];
        Self { runs: vec![Run { begin: 0, case, weights, parallel: false, end: End::Await }], shared: None }
    }
}

impl Plan {
    fn new(runs: Vec<Run>, mut shared: Option<Shared>) -> Self {
        if runs.iter().any(|run| run.parallel) {
            // No item is refused, even if the limit is lowered later.
            if let Some(shared) = &mut shared {
                shared.permits = shared.permits.max(HEAVY as usize);
            }
        }
        Self { runs, shared }
    }
}

fn taker() -> impl Strategy<Value = Taker> {
    let nap = prop_oneof![1 => Just(0), 2 => 1..LONG, 1 => 1..LONG / 20, 1 => LONG..4 * LONG];
    (any::<bool>(), prop_oneof![1 => Just(Vec::new()), 5 => vec(nap, 1..6)], weighted(0.3, 0..6_usize))
        .prop_map(|(ordered, naps, fails_at)| Taker { ordered, naps, fails_at })
}

fn orders() -> impl Strategy<Value = Vec<(Millis, Order)>> {
    let order = prop_oneof![
        6 => (1..8_usize).prop_map(Order::Concurrency),
        3 => Just(Order::Pause),
        3 => Just(Order::Resume),
        2 => Just(Order::Drain),
        2 => Just(Order::Cancel),
        5 => Just(Order::Look),
    ];
    let at = prop_oneof![1..LONG, 1..4 * LONG];
    vec((at, order), 0..8).prop_map(|mut orders| {
        orders.sort_by_key(|(at, _)| *at);
        // A run that stays paused never ends.
        orders.push((5 * LONG, Order::Resume));
        orders
    })
}

/// The parts of a run besides its case.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Anything.
    Any,
    /// While it waits for permits, its next event can only be that it gets them.
    Steady,
    /// As steady, and it never requests permits at the instant at which it gets some.
    Modest,
}

fn end(kind: Kind) -> BoxedStrategy<End> {
    let stream = taker().prop_map(|taker| End::Stream(Taker { fails_at: None, ..taker }));
    match kind {
        Kind::Any => {
            let for_each = taker().prop_map(End::ForEach);
            let handle = orders().prop_map(End::Spawn);
            prop_oneof![1 => Just(End::Await), 3 => for_each, 3 => stream, 3 => handle].boxed()
        }
        _ => Just(End::Await).boxed(),
    }
}

/// The weight of an item that is heavy and can still be started.
const HEAVY: u32 = 4;

fn run(kind: Kind, parallel: bool) -> BoxedStrategy<Run> {
    // Two attempts that end when they begin would be a tie between two tasks.
    let takes_time = parallel || kind == Kind::Modest;
    let start = if takes_time { Start::TakesTime } else { Start::MayEnd };
    let run = (script::case_with(start).boxed(), end(kind)).prop_flat_map(move |(mut case, end)| {
        if kind == Kind::Modest {
            case.concurrency = 1;
        }
        if kind != Kind::Any {
            case.retries = 0;
        }
        if case.concurrency > 1 || matches!(end, End::Spawn(_)) {
            // Items that begin at one instant would end at one instant, and the order between them would not be
            // defined.
            (case.per_attempt, case.per_item) = (None, None);
            case.per_run.get_or_insert(50 * LONG);
        }
        let count = case.items.len();
        // Most items can start, sooner or later. On several tasks the order of the called items before the one that
        // can never start would not be defined.
        let heaviest = u32::try_from(case.concurrency).unwrap_or(1).min(HEAVY);
        let too_heavy = if parallel { heaviest } else { HEAVY + 2 };
        let heavy = prop_oneof![60 => 0..=heaviest, 1 => Just(too_heavy)];
        let ones = Just(vec![1; count]);
        let weights = match end {
            // Its handle may lower the limit below any weight.
            End::Spawn(_) if parallel => ones.boxed(),
            _ => prop_oneof![ones, vec(heavy, count)].boxed(),
        };
        (Just(case), Just(end), weights).prop_map(move |(case, end, weights)| Run {
            begin: 0,
            case,
            weights,
            parallel,
            end,
        })
    });
    run.boxed()
}

fn shared() -> impl Strategy<Value = Shared> {
    let permits = || prop_oneof![40 => 4..8_usize, 8 => 1..4_usize, 1 => Just(0), 4 => Just(30)];
    (permits(), vec((1..4 * LONG, permits()), 0..4)).prop_map(|(permits, mut changes)| {
        changes.sort_by_key(|(at, _)| *at);
        // A limit that stays at 0 would block its runs for ever.
        changes.push((5 * LONG, HEAVY as usize));
        Shared { permits, changes }
    })
}

/// Plans in which the first run, or the only one, is spawned or not.
pub(super) fn plan(parallel: bool) -> impl Strategy<Value = Plan> {
    let alone = move || run(Kind::Any, parallel);
    // If two runs share a limit, their order must be defined.
    let second = if parallel { Kind::Modest } else { Kind::Steady };
    let second = (1..2 * LONG, run(second, false)).prop_map(|(begin, run)| Run { begin, ..run });
    let pair = (run(Kind::Steady, parallel), second, shared());
    prop_oneof![
        4 => alone().prop_map(|run| Plan::new(vec![run], None)),
        2 => (alone(), shared()).prop_map(|(run, shared)| Plan::new(vec![run], Some(shared))),
        3 => pair.prop_map(|(run, second, shared)| Plan::new(vec![run, second], Some(shared))),
    ]
}
