//! Kills the worker, the server and the coordinator in the middle of a run. The results are those of an undisturbed run,
//! and only items that were running run again.

mod account;
mod cluster;

use std::ops::Range;

use self::cluster::{Cluster, Part};
use crate::balancer::Balancer;
use crate::process::{CONCURRENCY, Map, Worker};
use crate::random::Random;

const ITEMS: u64 = 2_000;

/// In the middle, so that these items are certain to run when something is killed.
const HELD: Range<u64> = ITEMS / 2..ITEMS / 2 + 10;

/// The seed for the times at which the run is killed.
const SEED: u64 = 20_261_122;

/// The number of times that the run is killed.
const KILLS: u64 = 6;

#[tokio::test]
async fn the_only_worker_is_killed_and_only_what_was_under_way_runs_again() {
    killed_while_items_are_held("worker", Part::Worker).await;
}

#[tokio::test]
async fn the_server_is_killed_and_the_coordinator_goes_on_by_itself() {
    killed_while_items_are_held("server", Part::Server).await;
}

async fn killed_while_items_are_held(run_id: &str, part: Part) {
    let mut cluster = Cluster::start(run_id, ITEMS).await;
    cluster.map.held = HELD;
    let mut coordinator = Some(cluster.coordinator());
    cluster.until_half_way().await;
    let at = cluster.kill(part, &mut coordinator).await;
    cluster.workers[0].open_gate();
    assert_eq!(coordinator.unwrap().report().await, cluster.map.undisturbed().await);
    let after = cluster.account();
    eprintln!("the {run_id} killed: {after}; killed at {at}");
    assert!(at.is_in_the_middle(), "{at}");
    // A held item has no outcome yet. Other running items have none, or have one that the engine had not received.
    let under_way = HELD.end - HELD.start..=CONCURRENCY;
    assert!(under_way.contains(&after.reruns()), "{after}");
    cluster.check_nothing_is_left().await;
}

#[tokio::test]
async fn the_coordinator_is_killed_and_the_next_one_runs_nothing_again() {
    let mut cluster = Cluster::start("coordinator", ITEMS).await;
    cluster.map.held = HELD;
    let mut coordinator = Some(cluster.coordinator());
    cluster.until_half_way().await;
    let at = cluster.kill(Part::Coordinator, &mut coordinator).await;
    // The next item is beyond the held ones, and waits for them.
    cluster.until_ended(at.ended() + 2 * CONCURRENCY).await;
    cluster.workers[0].open_gate();
    let expected = cluster.map.undisturbed().await;
    assert_eq!(coordinator.unwrap().report().await, expected);
    let after = cluster.account();
    eprintln!("the coordinator killed: {after}; killed at {at}");
    assert!(at.is_in_the_middle(), "{at}");
    assert_eq!(after.executions(), vec![1; ITEMS as usize], "{after}");

    // The outcomes are kept for a run with this id, and for no other.
    assert_eq!(cluster.coordinator().report().await, expected);
    assert_eq!(cluster.account().executions(), vec![1; ITEMS as usize]);
    let another = Map { items: CONCURRENCY, run_id: "another".to_owned(), ..cluster.map.clone() };
    assert_eq!(cluster.coordinator_of(&another).report().await, another.undisturbed().await);
    let (again, once) = (vec![2; CONCURRENCY as usize], vec![1; (ITEMS - CONCURRENCY) as usize]);
    assert_eq!(cluster.account().executions(), [again, once].concat());
    cluster.check_nothing_is_left().await;
}

#[tokio::test]
async fn all_are_killed_at_random_and_only_what_was_under_way_runs_again() {
    let mut cluster = Cluster::start("all", ITEMS).await;
    let mut coordinator = Some(cluster.coordinator());
    let mut random = Random(SEED);
    let mut killed = Vec::new();
    for kill in 0..KILLS {
        // One kill in each stretch of the run. Each part is killed twice.
        let stretch = ITEMS / (KILLS + 1);
        cluster.until_ended(kill * stretch + 1 + random.below(stretch)).await;
        let part = [Part::Worker, Part::Server, Part::Coordinator][kill as usize % 3];
        let at = cluster.kill(part, &mut coordinator).await;
        assert!(at.is_in_the_middle(), "{at}");
        killed.push(format!("{part:?} at {at}"));
    }
    assert_eq!(coordinator.unwrap().report().await, cluster.map.undisturbed().await);
    let after = cluster.account();
    eprintln!("all killed, seed {SEED}: {after}; killed: {}", killed.join("; "));
    // The death of a coordinator costs no reruns.
    assert!(after.reruns() <= (KILLS - KILLS / 3) * CONCURRENCY, "{after}");
    cluster.check_nothing_is_left().await;
}

#[tokio::test]
async fn of_two_workers_each_is_killed_in_turn_and_the_other_goes_on() {
    const ITEMS: u64 = 3_000;
    const ONE_BAD_OF: u64 = 100;
    let mut cluster = Cluster::start("two", ITEMS).await;
    cluster.workers.push(Worker::start(cluster.folder.file("second")).await);
    let ports: Vec<_> = cluster.workers.iter().map(Worker::port).collect();
    let balancer = Balancer::start(cluster.folder.path(), &ports).await;
    cluster.server.register(balancer.port()).await;
    cluster.map.one_bad_of = Some(ONE_BAD_OF);

    let coordinator = cluster.coordinator();
    cluster.until_ended(ITEMS / 6).await;
    let mut killed = Vec::new();
    for (victim, other) in [(0, 1), (1, 0)] {
        // Both have new work, so the balancer knows that both are healthy.
        cluster.until_ended_by(victim, 20).await;
        cluster.until_ended_by(other, 20).await;
        cluster.workers[victim].kill();
        killed.push(cluster.account());
        cluster.until_ended_by(other, 200).await;
        cluster.workers[victim].revive().await;
    }
    let report = coordinator.report().await;
    let after = cluster.account();
    let bad = ITEMS / ONE_BAD_OF;
    assert_eq!(report, cluster.map.undisturbed().await);
    assert_eq!((report.errors.len() as u64, report.retries as u64), (bad, bad));
    let attempts = |index| if cluster.map.is_bad(index) { 2 } else { 1 };
    for (index, executions) in (0..).zip(after.executions()) {
        assert!(*executions >= attempts(index), "item {index} ran {executions} times");
    }
    // Each bad item has a second attempt, which does not count as a rerun.
    let reruns = after.reruns() - bad;
    let ended = [cluster.ended_by(0), cluster.ended_by(1)];
    eprintln!("two workers, each killed: {after}, {bad} of these as retries and {reruns} after kills");
    eprintln!("{} and {} by each; killed at {} and at {}", ended[0], ended[1], killed[0], killed[1]);
    for at in killed {
        assert!(at.is_in_the_middle(), "{at}");
    }
    assert!(reruns <= 2 * CONCURRENCY, "{after}");
    cluster.check_nothing_is_left().await;
}
