//! The work of the items. Every item `n` returns `2n`.

use std::fmt;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::contenders::{Contender, ItemResult, contenders};
use crate::http::fetches;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    #[value(name = "w0", help = "ready at once")]
    Ready,
    #[value(name = "w1", help = "yields once")]
    Yields,
    #[value(name = "w2", help = "sleeps for 1 ms")]
    Sleeps,
    #[value(name = "w3", help = "one in a hundred fails and is retried after 1 ms")]
    Fails,
    #[value(name = "w4", help = "GET from a server on the other core")]
    Fetches,
    #[value(name = "w5", help = "2 us of CPU")]
    Computes,
}

impl Workload {
    pub(crate) fn contenders(self) -> Vec<Contender> {
        let mut contenders = match self {
            Self::Ready => contenders(ready, ready),
            Self::Yields => contenders(yields, yields),
            Self::Sleeps => contenders(sleeps, sleeps),
            Self::Fails => contenders(retries, fails),
            Self::Fetches => contenders(fetches, fetches),
            Self::Computes => contenders(computes, computes),
        };
        // Waiting for one or two at a time would take minutes, and show nothing new.
        let waits = matches!(self, Self::Sleeps | Self::Fails);
        contenders.retain(|contender| match contender.name {
            "sequential" => !waits,
            "two loops" => self == Self::Computes,
            _ => true,
        });
        contenders
    }

    fn value(self) -> PossibleValue {
        self.to_possible_value().expect("no workload is skipped")
    }

    pub(crate) fn name(self) -> String {
        self.value().get_name().to_uppercase()
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value();
        write!(f, "{}, {}", self.name(), value.get_help().expect("each has a line of help"))
    }
}

async fn ready(n: u64) -> ItemResult {
    black_box(Ok(n * 2))
}

async fn yields(n: u64) -> ItemResult {
    yield_now().await;
    black_box(Ok(n * 2))
}

async fn sleeps(n: u64) -> ItemResult {
    sleep(Duration::from_millis(1)).await;
    Ok(n * 2)
}

async fn computes(n: u64) -> ItemResult {
    black_box((0..1_500_u64).fold(n, |x, i| (x ^ i).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(7)));
    Ok(n * 2)
}

/// The attempts of one item in a hundred fail and succeed by turns.
async fn fails(n: u64) -> ItemResult {
    // Items that share a place are a million apart, and never run at once.
    static FAILED: [AtomicBool; 10_000] = [const { AtomicBool::new(false) }; 10_000];
    if n % 100 == 50 && !FAILED[(n / 100 % 10_000) as usize].fetch_xor(true, Ordering::Relaxed) {
        return Err(1);
    }
    black_box(Ok(n * 2))
}

/// The part that peers leave to the item: up to three retries, with delays that double and spread as widely as ours.
async fn retries(n: u64) -> ItemResult {
    let mut wait = Duration::from_micros(500 + n % 1_000);
    for _ in 0..3 {
        let result = fails(n).await;
        if result.is_ok() {
            return result;
        }
        sleep(wait).await;
        wait *= 2;
    }
    fails(n).await
}
