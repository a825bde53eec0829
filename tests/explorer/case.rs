//! The case of one schedule: the settings of a run, the behaviour of its items, and the orders that it gets.

use std::time::Duration;

use shuttle::rand::{Rng, thread_rng};

use crate::rt::FAR;

/// The end of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Await,
    Spawn,
    ForEach,
    Stream,
}

/// The way in which the run is stopped from outside, at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    Never,
    /// The caller's token is cancelled.
    Token,
    /// The run is dropped; a handle is cancelled and dropped.
    Drop,
    Cancel,
    Drain,
}

/// An order to a run in progress.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    Pause,
    Resume,
    SetConcurrency(usize),
    SetPermits(usize),
    /// The interval between two starts under the limiter.
    SetRate(Duration),
    HoldBack(Duration),
    Progress,
    Nothing,
}

/// A wait of an attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wait {
    /// The attempt wakes itself.
    Again,
    /// Another task wakes the attempt.
    Elsewhere,
    /// The attempt ends when its token is cancelled.
    Cancelled,
    /// The attempt ends once the next item has begun, which has its own permits.
    Next,
}

#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) weight: u32,
    pub(crate) wait: Option<Wait>,
    /// The number of attempts that fail.
    pub(crate) failures: u32,
}

/// The limiter of the keys of items. The key of an item is the remainder of its index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys {
    pub(crate) count: usize,
    pub(crate) permits: usize,
    pub(crate) max_keys: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) concurrency: usize,
    pub(crate) items: Vec<Item>,
    /// The permits of a shared limiter.
    pub(crate) limiter: Option<usize>,
    /// The interval between two starts under the limiter.
    pub(crate) rate: Option<Duration>,
    /// The permits of a second shared limiter.
    pub(crate) second: Option<usize>,
    /// `true` if a second run shares the limiter, and the second one, if there is one.
    pub(crate) rival: bool,
    /// `true` if a third run shares only the second limiter.
    pub(crate) second_rival: bool,
    /// If items have keys. The rival has the same ones.
    pub(crate) keys: Option<Keys>,
    pub(crate) end: End,
    pub(crate) ordered: bool,
    pub(crate) retries: u32,
    pub(crate) retry_delay: Duration,
    pub(crate) fail_fast: bool,
    pub(crate) early_success: Option<usize>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) grace: Duration,
    /// `true` if the source never ends, so that the run ends only if it is stopped.
    pub(crate) endless: bool,
    /// `true` if the source waits for each item.
    pub(crate) slow_source: bool,
    /// `true` if the source has an exact size hint.
    pub(crate) known_total: bool,
    /// `true` if the consumer of the outcomes waits after each.
    pub(crate) slow_sink: bool,
    pub(crate) orders: Vec<Order>,
    pub(crate) stop: Stop,
    /// Each reading moves the clock by this much.
    pub(crate) tick: Duration,
    /// The percentage of looks at the budget that find it used up.
    pub(crate) exhaustion: u32,
}

/// The cases that a test draws from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    /// `true` if the items of a run differ in weight.
    pub(crate) mixed_weights: bool,
}

impl Case {
    pub(crate) fn draw(range: Range) -> Self {
        let chance = |percent| thread_rng().gen_ratio(percent, 100);
        let up_to = |most: u64| thread_rng().gen_range(0..=most);
        let micros = |micros: &[u64]| Duration::from_micros(micros[up_to(micros.len() as u64 - 1) as usize]);
        let size = |least: usize, most: usize| thread_rng().gen_range(least..=most);

        let concurrency = size(1, 4);
        let has_limiter = chance(if range.mixed_weights { 70 } else { 40 });
        let limiter = has_limiter.then(|| size(2, 3));
        let second = (has_limiter && chance(40)).then(|| size(2, 3));
        let keys = chance(30).then(|| Keys { count: size(1, 3), permits: size(1, 2), max_keys: size(1, 3) });
        let heaviest = if range.mixed_weights || chance(40) { concurrency.min(2) } else { 1 };
        let end = [End::Await, End::Spawn, End::ForEach, End::Stream][size(0, 3)];
        let stops = [Stop::Token, Stop::Drop, Stop::Cancel, Stop::Drain];
        let stop =
            if chance(40) { stops[size(0, if end == End::Spawn { 3 } else { 1 })] } else { Stop::Never };
        // A run that drains waits for its attempts, and does not cancel them.
        let cancels = !matches!(stop, Stop::Never | Stop::Drain);
        let endless = stop != Stop::Never && chance(50);
        // Two items can always run at once, and a run that stops cancels them.
        let pairs = !has_limiter
            && keys.is_none()
            && !range.mixed_weights
            && concurrency >= 2 * heaviest
            && stop != Stop::Drain;
        let item = |index: u64| Item {
            weight: size(if range.mixed_weights { 1 } else { heaviest }, heaviest) as u32,
            wait: match size(0, if cancels { 3 } else { 2 }) {
                _ if pairs && index % 2 == 0 && chance(30) => Some(Wait::Next),
                0 => None,
                1 => Some(Wait::Again),
                2 => Some(Wait::Elsewhere),
                _ => Some(Wait::Cancelled),
            },
            failures: if chance(25) { size(1, 3) as u32 } else { 0 },
        };
        // A limit may be set below the weight of an item, which then runs alone.
        let least = if pairs { 2 * heaviest } else { 1 };
        let order = |_| match size(0, 7) {
            0 => Order::Pause,
            1 => Order::Resume,
            2 => Order::SetConcurrency(size(least, 5)),
            3 if has_limiter => Order::SetPermits(size(1, 4)),
            4 => Order::Progress,
            5 if has_limiter => Order::SetRate(micros(&[1, 20, 200])),
            6 if has_limiter => Order::HoldBack(micros(&[10, 100])),
            _ => Order::Nothing,
        };
        Self {
            concurrency,
            items: (0..up_to(7)).map(item).collect(),
            limiter,
            rate: (has_limiter && chance(40)).then(|| micros(&[1, 20, 200])),
            second,
            rival: has_limiter && chance(30),
            second_rival: second.is_some() && chance(50),
            keys,
            end,
            ordered: chance(30),
            retries: size(0, 2) as u32,
            retry_delay: micros(&[0, 0, 0, 20]),
            fail_fast: chance(10),
            early_success: chance(10).then(|| size(1, 3)),
            timeout: chance(15).then(|| micros(&[10, 50])),
            grace: [Duration::ZERO, Duration::from_micros(30), FAR][size(0, 2)],
            endless,
            slow_source: chance(50),
            known_total: !endless && chance(50),
            slow_sink: chance(50),
            orders: (0..if chance(60) { up_to(5) } else { 0 }).map(order).collect(),
            stop,
            tick: Duration::from_nanos([0, 900, 900, 30_000][size(0, 3)]),
            exhaustion: if chance(30) { 5 } else { 0 },
        }
    }
}
