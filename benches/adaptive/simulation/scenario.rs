//! The scenarios: what the server does, and what its clients want.

use std::f64::consts::PI;
use std::time::Duration;

/// The service time of an item, in seconds.
#[derive(Clone)]
pub(crate) enum Items {
    Lognormal {
        mean: f64,
        deviation: f64,
    },
    /// This share of the items has the other mean.
    TwoKinds {
        mean: f64,
        other: f64,
        share: f64,
    },
    /// This share of the items takes exactly `stall`.
    SomeStall {
        mean: f64,
        stall: f64,
        share: f64,
    },
}

impl Items {
    pub(crate) fn mean(&self) -> f64 {
        match *self {
            Self::Lognormal { mean, .. } => mean,
            Self::TwoKinds { mean, other, share } | Self::SomeStall { mean, stall: other, share } => {
                mean * (1.0 - share) + other * share
            }
        }
    }
}

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) length: Duration,
    /// The workers of the server at a second.
    pub(crate) workers: fn(f64) -> u32,
    /// A factor of all service times at a second.
    pub(crate) slowness: fn(f64) -> f64,
    /// How many items wait at the server before it refuses.
    pub(crate) queue: usize,
    pub(crate) items: Items,
    /// Weights are from 1 to this. An item takes its weight times as long.
    pub(crate) heaviest: u32,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) clients: usize,
    /// `true` if a client has more items at a second.
    pub(crate) wants: fn(usize, f64) -> bool,
    pub(crate) start: usize,
    pub(crate) most: usize,
    /// The seconds that count.
    pub(crate) counted: (f64, f64),
    /// The seconds at which capacity changes, up to which it must be found again.
    pub(crate) changes: &'static [f64],
}

const UNBOUNDED: usize = usize::MAX;

impl Scenario {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            length: Duration::from_secs(60),
            workers: |_| 32,
            slowness: |_| 1.0,
            queue: UNBOUNDED,
            items: Items::Lognormal { mean: 0.05, deviation: 0.5 },
            heaviest: 1,
            time_limit: None,
            clients: 1,
            wants: |_, _| true,
            start: 4,
            most: 500,
            counted: (10.0, 60.0),
            changes: &[],
        }
    }

    /// Returns the items, or permits, per second that are possible at a second.
    pub(crate) fn ideal(&self, second: f64) -> f64 {
        let workers = f64::from((self.workers)(second)).min(self.most as f64 * self.clients as f64);
        let is_wanted = (0..self.clients).any(|client| (self.wants)(client, second));
        if is_wanted { workers / self.items.mean() / (self.slowness)(second) } else { 0.0 }
    }
}

fn cut(second: f64) -> u32 {
    if (30.0..60.0).contains(&second) { 8 } else { 32 }
}

/// All scenarios, in the order of the table.
pub(crate) fn all() -> Vec<Scenario> {
    let long =
        |name| Scenario { length: Duration::from_secs(90), counted: (10.0, 90.0), ..Scenario::new(name) };
    let slow = Items::Lognormal { mean: 2.0, deviation: 0.5 };
    vec![
        Scenario::new("saturated"),
        Scenario { workers: cut, queue: 32, changes: &[30.0, 60.0], ..long("cut, refusals") },
        Scenario {
            workers: |_| 100_000,
            items: Items::SomeStall { mean: 0.01, stall: 2.0, share: 0.05 },
            most: 1_000,
            counted: (20.0, 60.0),
            ..Scenario::new("no bottleneck")
        },
        Scenario { clients: 3, ..Scenario::new("three clients") },
        Scenario {
            clients: 3,
            wants: |client, second| second >= 10.0 * client as f64,
            counted: (40.0, 90.0),
            ..long("three, one by one")
        },
        Scenario {
            workers: |second| (24.0 + 8.0 * (second * PI / 30.0).cos()).round() as u32,
            queue: 32,
            ..long("drift")
        },
        Scenario {
            items: Items::TwoKinds { mean: 0.02, other: 0.095, share: 0.4 },
            ..Scenario::new("two kinds")
        },
        Scenario {
            items: Items::TwoKinds { mean: 0.02, other: 0.17, share: 0.2 },
            ..Scenario::new("two kinds, 1 in 5")
        },
        Scenario {
            workers: cut,
            time_limit: Some(Duration::from_millis(200)),
            changes: &[30.0, 60.0],
            ..long("cut, time limits")
        },
        Scenario {
            slowness: |second| (1.0 + (second - 10.0).max(0.0) / 16.0).min(4.0),
            ..long("ever slower")
        },
        Scenario { slowness: |second| if second < 30.0 { 1.0 } else { 3.0 }, ..long("slower at once") },
        Scenario {
            wants: |_, second| !(30.0..60.0).contains(&second),
            workers: |second| if second < 45.0 { 32 } else { 8 },
            queue: 32,
            changes: &[60.0],
            ..long("idle, then cut")
        },
        Scenario { wants: |_, second| second % 10.0 < 2.0, counted: (10.0, 90.0), ..long("2 s in 10") },
        Scenario { queue: 4, ..Scenario::new("refuses above 4") },
        Scenario { queue: 0, ..Scenario::new("refuses, no queue") },
        Scenario { heaviest: 4, start: 10, ..Scenario::new("weights 1 to 4") },
        Scenario { start: 200, ..Scenario::new("starts at 200") },
        Scenario { workers: |_| 2, ..Scenario::new("2 workers") },
        Scenario {
            workers: |_| 8,
            items: slow,
            length: Duration::from_secs(600),
            counted: (200.0, 600.0),
            ..Scenario::new("8 workers, 2 s")
        },
        Scenario { workers: |_| 320, most: 1000, ..Scenario::new("320 workers") },
        Scenario { clients: 10, ..Scenario::new("ten clients") },
        Scenario {
            items: Items::SomeStall { mean: 0.04, stall: 0.3, share: 0.04 },
            time_limit: Some(Duration::from_millis(200)),
            ..Scenario::new("4% time out")
        },
    ]
}
