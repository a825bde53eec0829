//! Rules 6 and 31: permits stay in use while items wait for their retries, and while `ordered` holds outcomes back.
//!
//! Every run is measured under a paused clock, in one task and on several cores, and printed as a row of a table.

use std::time::Duration;

use async_map_task::{AsyncMapTask, AsyncMapTaskBuilder};
use futures::StreamExt;
use tokio::time::{Instant, sleep};

use crate::support::{End, Terminal, lenient, secs};

const CONCURRENCY: [usize; 3] = [4, 16, 64];

/// The duration of an attempt, except for the slow ones.
const ATTEMPT: Duration = Duration::from_millis(100);

/// Prints a row, and keeps it if its ratio is above the bound.
fn row(too_long: &mut Vec<String>, text: &str, took: Duration, least: Duration, bound: f64) {
    let ratio = took.as_secs_f64() / least.as_secs_f64();
    let text = format!("{text}: {:.1} s, {ratio:.2} of {:.1} s", took.as_secs_f64(), least.as_secs_f64());
    eprintln!("{text}");
    if ratio > bound {
        too_long.push(text);
    }
}

/// Executes a run in which some items fail for good. Returns its duration and the number of attempts.
async fn run_with_failures(
    parallel: bool,
    concurrency: usize,
    items: usize,
    percent: usize,
) -> (Duration, usize) {
    let task = lenient().concurrency(concurrency).retries(3).build().unwrap();
    // They are spread evenly, and the last item is one of them.
    let fails = move |n: usize| percent > 0 && (n + 1) % (100 / percent) == 0;
    let run = task.over(0..items).map(move |n| async move {
        sleep(ATTEMPT).await;
        if fails(n) { Err("down") } else { Ok(()) }
    });
    let begun = Instant::now();
    let result = if parallel { run.parallel().await } else { run.await }.unwrap();
    let failures = items * percent / 100;
    assert_eq!((result.failures(), result.summary.retries), (failures, 3 * failures));
    (begun.elapsed(), items + result.summary.retries)
}

#[tokio::test(start_paused = true)]
async fn rule_06_permits_stay_in_use_during_retry_delays() {
    // The delays of the last item, which fails: nothing can run while it waits. They are exact, so that the rest is
    // the work of the permits.
    let last_delays = secs(1 + 2 + 4);
    let mut too_long = Vec::new();
    for parallel in [false, true] {
        for concurrency in CONCURRENCY {
            for percent in [0, 1, 5, 10, 20] {
                // Each permit has 30 s of work or more, several times the total delay of an item.
                let (took, attempts) =
                    run_with_failures(parallel, concurrency, 300 * concurrency, percent).await;
                let least = ATTEMPT * u32::try_from(attempts / concurrency).unwrap();
                let took = if percent == 0 { took } else { took - last_delays };
                let text = format!("parallel: {parallel}, concurrency {concurrency:2}, {percent:2}% fail");
                row(&mut too_long, &text, took, least, 1.05);
            }
        }
    }
    assert!(too_long.is_empty(), "permits were not in use: {too_long:#?}");
}

/// One item in a hundred takes `factor` times as long as the others.
#[derive(Debug, Clone, Copy)]
struct Tail {
    concurrency: usize,
    items: usize,
    factor: u32,
}

impl Tail {
    fn task(self) -> AsyncMapTask {
        // While a slow item runs, the other permits finish `factor` items each, and all of these are held. The window
        // has to hold them, and the default does so if the tail is short or the permits are few.
        let window = self.concurrency * self.factor as usize;
        let default = (16 * self.concurrency).max(256);
        let builder: AsyncMapTaskBuilder = lenient().concurrency(self.concurrency);
        let builder = if window > default { builder.look_ahead(window) } else { builder };
        builder.build().unwrap()
    }

    async fn time(self, end: End) -> Duration {
        let run = self.task().over(0..self.items).map(move |n| async move {
            sleep(if n % 100 == 50 { ATTEMPT * self.factor } else { ATTEMPT }).await;
            Ok::<_, String>(n)
        });
        let run = if end.ordered { run.ordered() } else { run };
        let begun = Instant::now();
        let mut taken = Vec::with_capacity(self.items);
        let mut take = |index: usize| {
            taken.push(index);
            std::future::ready(())
        };
        match (end.terminal, end.parallel) {
            (Terminal::ForEach, false) => {
                run.for_each(|outcome| take(outcome.index)).await.unwrap();
            }
            (Terminal::ForEach, true) => {
                run.parallel().for_each(|outcome| take(outcome.index)).await.unwrap();
            }
            (_, false) => run.stream().for_each(|outcome| take(outcome.unwrap().index)).await,
            (_, true) => run.parallel().stream().for_each(|outcome| take(outcome.unwrap().index)).await,
        }
        assert_eq!(taken.len(), self.items);
        assert_eq!(taken.is_sorted(), end.ordered, "the slow ones are overtaken unless they are waited for");
        begun.elapsed()
    }
}

#[tokio::test(start_paused = true)]
async fn rule_31_permits_stay_in_use_while_outcomes_are_held() {
    let mut too_long = Vec::new();
    for end in [Terminal::ForEach, Terminal::Stream].into_iter().flat_map(End::of).filter(|end| !end.ordered)
    {
        for concurrency in CONCURRENCY {
            for factor in [10, 50] {
                let tail = Tail { concurrency, items: 200 * concurrency, factor };
                let unordered = tail.time(end).await;
                let ordered = tail.time(End { ordered: true, ..end }).await;
                let End { terminal, parallel, .. } = end;
                let text = format!(
                    "parallel: {parallel}, {terminal:?}, concurrency {concurrency:2}, 1% take {factor} times as long"
                );
                row(&mut too_long, &text, ordered, unordered, 1.10);
            }
        }
    }
    assert!(too_long.is_empty(), "permits were not in use: {too_long:#?}");
}
