//! A small model of random sequences of events. Attempts end, time out and are killed by hand. Coordinators die, come back
//! and run two at a time. The worker and the server die, and the deployment is removed. The log of the handlers shows if an
//! item began after its success was reported, or after `settled` had returned that nothing of its run continues. Each item
//! is accounted for, and a last coordinator has the outcomes of all.
//!
//! The model has no slow way to the ingress: a call that arrives more than 5 s after its run was stopped begins, as the
//! guide says.
//!
//! `MODEL_SEQUENCES` is the number of sequences, a dozen by default. `MODEL_SEED` is the seed of a single sequence, to
//! repeat it.

mod coordinator;
mod steps;
mod trace;

use std::collections::BTreeMap;
use std::env;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::coordinator::Ways;
use self::steps::Sequence;
use self::trace::Trace;
use crate::folder::Folder;
use crate::process::Worker;
use crate::random::{Random, mix};
use crate::server::Server;
use crate::work::Item;

/// The first seed.
const SEED: u64 = 20_261_130;

const SEQUENCES: u64 = 12;

/// More attempts than an item can have used.
const LAST: Ways = Ways {
    concurrency: 8,
    retries: 9,
    timeout: Some(Duration::from_secs(3)),
    grace: Duration::ZERO,
    kill_after: Duration::from_millis(100),
};

/// The parts that sequences break, and repair again.
struct Parts {
    server: Server,
    worker: Worker,
    folder: Folder,
}

#[tokio::test]
async fn what_is_told_and_what_is_settled_never_begins_again() {
    let number = |name: &str| env::var(name).ok().map(|number| number.parse::<u64>().unwrap());
    let seeds: Vec<_> = match number("MODEL_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("MODEL_SEQUENCES").unwrap_or(SEQUENCES)).map(|n| mix(SEED + n) >> 32).collect(),
    };
    let folder = Folder::new();
    let worker = Worker::start(folder.file("worker")).await;
    let server = Server::start().await;
    server.register(worker.port()).await;
    let mut parts = Parts { server, worker, folder };
    let (mut sum, mut wrong, began) = (Account::default(), Vec::new(), Instant::now());
    for seed in &seeds {
        match sequence(*seed, &mut parts).await {
            Ok(account) => sum.add(&account),
            Err(text) => {
                eprintln!("MODEL_SEED={seed} repeats this sequence:\n{text}");
                wrong.push(seed);
            }
        }
    }
    eprintln!("{} sequences in {:.1?}: {sum:?}", seeds.len(), began.elapsed());
    assert!(wrong.is_empty(), "these are wrong, and stand above: {wrong:?}");
    assert!(sum.starts > 0 && sum.told > 0, "nothing was tried");
}

/// The results of the sequences.
#[derive(Debug, Default)]
struct Account {
    steps: BTreeMap<String, usize>,
    coordinators: usize,
    items: usize,
    starts: usize,
    told: usize,
}

impl Account {
    fn add(&mut self, other: &Self) {
        for (step, count) in &other.steps {
            *self.steps.entry(step.clone()).or_default() += count;
        }
        self.coordinators += other.coordinators;
        self.items += other.items;
        self.starts += other.starts;
        self.told += other.told;
    }
}

async fn sequence(seed: u64, parts: &mut Parts) -> Result<Account, String> {
    let mut random = Random(seed);
    let items = items(&mut random, parts, seed);
    let trace = Arc::new(Trace::new(&parts.folder.file(&format!("{seed}.log")), items.len()));
    let mut sequence = Sequence::new(seed, parts, &items, Arc::clone(&trace));
    let steps = 6 + random.below(8);
    let ended = sequence.take(steps, &mut random).await;
    let mut history = trace.history();
    history.faults.extend(ended.err());
    if !history.faults.is_empty() {
        sequence.mend().await;
        return Err(format!("{:#?}\n{items:#?}\n{}", history.faults, trace.text()));
    }
    Ok(Account {
        steps: sequence.taken,
        coordinators: sequence.coordinators,
        items: items.len(),
        starts: history.starts.iter().sum(),
        told: (0..items.len()).filter(|item| history.is_told(*item)).count(),
    })
}

/// Fails in each of its executions.
fn is_bad(item: &Item) -> bool {
    item.fails == u64::MAX
}

fn items(random: &mut Random, parts: &Parts, seed: u64) -> Vec<Item> {
    let count = 3 + random.below(4);
    let log = parts.folder.file(&format!("{seed}.log"));
    let mut item = |index| {
        let plain = Item { index, log: log.clone(), ..Item::default() };
        let gate = Some(parts.folder.file(&format!("{seed}.{index}.gate")));
        match random.below(8) {
            0 => plain,
            1 => Item { millis: 200, ..plain },
            2 => Item { millis: 300, heeds: true, ..plain },
            3 => Item { fails: 1 + random.below(2), gate, ..plain },
            4 => Item { fails: u64::MAX, ..plain },
            5 => Item { stumbles: 1, gate, ..plain },
            _ => Item { gate, ..plain },
        }
    };
    (0..count).map(&mut item).collect()
}
