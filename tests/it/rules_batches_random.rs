//! Rule 43: random runs of batches, against the same items without batches, and against what each item must end as.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_map_task::{AsyncMapTask, ItemError};
use futures::stream;
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::every_batch::{Answer, Batched};
use crate::every_end::{End, Plan, Report, Terminal};
use crate::support::{Random, Woken, at_once, cases, in_time, millis, paused, poll_times, secs, workers};

/// What an item does in each of its calls.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Good,
    /// Its result is an error.
    Bad,
    /// Its result is an error in its first calls.
    BadAtFirst(u32),
    /// The call that has it fails as a whole, in one of three ways.
    Poison,
    Panics,
    Hangs,
}

/// A run of random batches.
#[derive(Debug, Clone)]
struct Case {
    kinds: Vec<Kind>,
    size: usize,
    concurrency: usize,
    retries: u32,
    wait: Duration,
    most_weight: u32,
    gap: Duration,
}

impl Case {
    fn draw(random: &mut Random, with_poison: bool) -> Self {
        let items = random.below(40);
        let kinds = if with_poison { 12 } else { 9 };
        let kind = |random: &mut Random| match random.below(kinds) {
            0 => Kind::Bad,
            1 | 2 => Kind::BadAtFirst(random.below(4) as u32),
            9 => Kind::Poison,
            10 => Kind::Panics,
            11 => Kind::Hangs,
            _ => Kind::Good,
        };
        Self {
            kinds: (0..items).map(|_| kind(random)).collect(),
            size: 1 + random.below(12) as usize,
            concurrency: 1 + random.below(4) as usize,
            retries: random.below(3) as u32,
            wait: millis(random.below(3) * 70),
            most_weight: if random.below(2) == 0 { u32::MAX } else { 1 + random.below(120) as u32 },
            gap: millis(random.below(2) * 30),
        }
    }

    fn task(&self) -> AsyncMapTask {
        let builder = at_once(self.concurrency).retries(self.retries).retry_delay(millis(200));
        builder.timeout_per_attempt(secs(5)).allow_failures().build().unwrap()
    }

    fn source(&self) -> impl stream::Stream<Item = u64> + Send + use<> {
        let gap = self.gap;
        stream::unfold((0, self.kinds.len() as u64), move |(next, items)| async move {
            if next == items {
                return None;
            }
            if !gap.is_zero() && next % 3 == 0 {
                sleep(gap).await;
            }
            Some((next, (next + 1, items)))
        })
    }

    /// The calls of the items so far.
    fn calls(&self) -> Arc<Mutex<BTreeMap<u64, u32>>> {
        Arc::default()
    }

    fn batched(&self, task: &AsyncMapTask) -> Batched {
        let (kinds, calls) = (self.kinds.clone(), self.calls());
        let call = move |items: Vec<u64>| {
            let kinds = kinds.clone();
            let has = |kind| items.iter().any(|n| kinds[*n as usize] == kind);
            let (poison, panics, hangs) = (has(Kind::Poison), has(Kind::Panics), has(Kind::Hangs));
            let calls = Arc::clone(&calls);
            async move {
                sleep(millis(items.len() as u64)).await;
                assert!(!panics, "a bad item");
                if hangs {
                    sleep(secs(60)).await;
                }
                if poison {
                    return Err("poison");
                }
                Ok(items.iter().map(|n| answer(&kinds, &calls, *n)).collect())
            }
        };
        let weight = self.most_weight;
        Batched::new(task, 0, self.size, call).source(self.source()).wait(self.wait).most_weight(weight)
    }

    fn alone(&self, task: &AsyncMapTask) -> Plan {
        let (kinds, calls) = (self.kinds.clone(), self.calls());
        Plan::new(task, self.source(), move |_, n| {
            let (kinds, calls) = (kinds.clone(), Arc::clone(&calls));
            async move {
                sleep(millis(1)).await;
                answer(&kinds, &calls, n)
            }
        })
    }
}

fn answer(kinds: &[Kind], calls: &Mutex<BTreeMap<u64, u32>>, n: u64) -> Result<u64, &'static str> {
    let mut calls = calls.lock().unwrap();
    let made = calls.entry(n).or_default();
    *made += 1;
    match kinds[n as usize] {
        Kind::Bad => Err("bad"),
        Kind::BadAtFirst(calls) if *made <= calls => Err("bad at first"),
        _ => Ok(n),
    }
}

fn by_index(report: &Report) -> BTreeMap<usize, Result<u64, ItemError<&'static str>>> {
    let all: BTreeMap<_, _> = report.outcomes.iter().cloned().collect();
    assert_eq!(all.len(), report.outcomes.len(), "an item has settled twice");
    all
}

fn draws() -> (Random, u64) {
    (Random(7), u64::from(cases("BATCH_CASES", 60)))
}

#[test]
fn rule_43_the_account_is_that_of_the_items_without_batches() {
    let (mut random, rounds) = draws();
    for round in 0..rounds {
        let case = Case::draw(&mut random, false);
        for end in End::all() {
            let batched = paused().block_on(in_time(case.batched(&case.task()).run(end)));
            let alone = paused().block_on(in_time(case.alone(&case.task()).run(end)));
            assert_eq!(by_index(&batched), by_index(&alone), "{round}: {end:?} {case:?}");
            let mut summary = batched.summary;
            (summary.elapsed, summary.calls) = (alone.summary.elapsed, 0);
            assert_eq!(summary, alone.summary, "{round}: {end:?} {case:?}");
        }
    }
}

#[test]
fn rule_43_each_item_ends_as_it_would_alone_whatever_is_in_its_calls() {
    let (mut random, rounds) = draws();
    let mut poisons = 0;
    for round in 0..rounds {
        let case = Case::draw(&mut random, true);
        for end in End::all() {
            let plan = case.batched(&case.task());
            let (running, left) = (plan.running.clone(), plan.left());
            let report = paused().block_on(in_time(plan.run(end)));
            let why = format!("{round}: {end:?} {case:?}");
            assert_eq!((running.now(), left.lines()), (0, vec![]), "{why}");
            assert!(running.peak() <= case.concurrency, "{why}");
            let outcomes = by_index(&report);
            assert_eq!(outcomes.len(), case.kinds.len(), "{why}");
            for (index, result) in &outcomes {
                let attempts = result.as_ref().err().map_or(1, ItemError::attempts);
                assert!((1..=case.retries + 1).contains(&attempts), "{why}: item {index}");
                let is_right = match (case.kinds[*index], result) {
                    (Kind::Good, Ok(n)) => *n == *index as u64,
                    (Kind::Bad, Err(ItemError::Failed { error: "bad", .. })) => true,
                    // The failures of a call are attempts of all its items, so it can run out of them.
                    (Kind::BadAtFirst(_), Ok(_) | Err(ItemError::Failed { error: "bad at first", .. })) => {
                        true
                    }
                    (Kind::Poison, Err(ItemError::Failed { error: "poison", .. })) => true,
                    (Kind::Panics, Err(ItemError::Panicked { message, .. })) => message == "a bad item",
                    (Kind::Hangs, Err(ItemError::TimedOut { .. })) => true,
                    _ => false,
                };
                assert!(is_right, "{why}: item {index} ended as {result:?}");
                poisons +=
                    usize::from(matches!(case.kinds[*index], Kind::Poison | Kind::Panics | Kind::Hangs));
            }
        }
    }
    assert!(poisons > 1_000, "only {poisons} items made their calls fail");
}

#[test]
fn rule_43_a_run_of_batches_dropped_at_any_poll_leaves_nothing() {
    let (mut random, rounds) = draws();
    let mut dropped = 0;
    for _ in 0..rounds / 6 {
        let case = Case::draw(&mut random, true);
        for end in End::all().filter(|end| end.terminal != Terminal::Spawn && !end.parallel) {
            for polls in 0.. {
                let has_ended = paused().block_on(async {
                    let woken = Arc::new(Woken::default());
                    let plan = case.batched(&case.task());
                    let running = plan.running.clone();
                    let has_ended = {
                        let run = pin!(plan.run(end));
                        poll_times(run, polls, &woken).await.is_some()
                    };
                    yield_now().await;
                    assert_eq!(running.now(), 0, "{polls}: {end:?} {case:?}");
                    has_ended
                });
                if has_ended {
                    break;
                }
                dropped += 1;
            }
        }
    }
    assert!(dropped > 500, "only {dropped} runs were dropped");
}

#[test]
fn rule_43_batches_on_several_cores_lose_nothing() {
    let (mut random, rounds) = draws();
    let runtime = workers(3);
    for round in 0..rounds {
        let Case { kinds, size, concurrency, retries, .. } = Case::draw(&mut random, false);
        let items = 40 * kinds.len() as u64;
        let task = at_once(concurrency).retries(retries).retry_delay(Duration::ZERO).allow_failures();
        let call = move |items: Vec<u64>| async move {
            for _ in 0..items[0] % 4 {
                yield_now().await;
            }
            let answer: Answer = if items.len() > 1 && items.iter().any(|n| n % 31 == 7) {
                Err("poison")
            } else {
                Ok(items.into_iter().map(|n| if n % 31 == 7 { Err("alone") } else { Ok(n) }).collect())
            };
            answer
        };
        let end = End { terminal: Terminal::Await, ordered: false, parallel: true };
        let plan = Batched::new(&task.build().unwrap(), items, size, call);
        let running = plan.running.clone();
        let report = runtime.block_on(in_time(plan.run(end)));
        let bad = (0..items).filter(|n| n % 31 == 7).count();
        assert_eq!((report.summary.failures, running.now()), (bad, 0), "{round}");
        assert_eq!(report.summary.successes, items as usize - bad, "{round}");
        assert!(running.peak() <= concurrency, "{round}");
    }
}
