//! Twenty call sites of distinct types, or one.

use std::fmt;
use std::time::Duration;

use async_map_task::AsyncMapTask;

/// An item, with a distinct type for each call site.
#[derive(Debug, Clone)]
pub struct Item<const SITE: usize>(pub u64);

/// An output, with a distinct type for each call site.
#[derive(Debug)]
pub struct Output<const SITE: usize>(pub u64);

/// The error of all call sites: most programs have one error type, or a few.
#[derive(Debug)]
pub struct Error(pub u64);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "item {} failed", self.0)
    }
}

impl std::error::Error for Error {}

/// The items of a call site.
pub fn items<const SITE: usize>(count: u64) -> Vec<Item<SITE>> {
    (0..count).map(Item).collect()
}

/// The map function of each call site.
pub async fn work<const SITE: usize>(item: Item<SITE>) -> Result<Output<SITE>, Error> {
    tokio::task::yield_now().await;
    if item.0 % 1_000 == 999 { Err(Error(item.0)) } else { Ok(Output(item.0)) }
}

/// A task with the usual settings.
pub fn task() -> AsyncMapTask {
    AsyncMapTask::builder()
        .concurrency(8)
        .retries(2)
        .retry_delay(Duration::from_millis(1))
        .timeout_per_attempt(Duration::from_secs(5))
        .min_success_ratio(0.9)
        .build()
        .expect("the settings are valid")
}

/// Runs a program. Its sum keeps the compiler from removing any part of it.
pub fn run(program: impl Future<Output = u64>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().expect("a runtime");
    println!("{}", runtime.block_on(program));
}

/// Returns the first argument: the number of items.
pub fn count() -> u64 {
    std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(10)
}

/// Calls a generic function once for each call site, and adds up the returned values. There are twenty call sites, or one
/// with the feature `one`.
#[macro_export]
macro_rules! sites {
    ($site:ident, $count:expr) => {{
        let mut sum = $site::<0>($count).await;
        #[cfg(not(feature = "one"))]
        {
            $crate::sites!(@ sum, $site, $count, 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19);
        }
        sum
    }};
    (@ $sum:ident, $site:ident, $count:expr, $($n:literal)*) => { $( $sum += $site::<$n>($count).await; )* };
}
