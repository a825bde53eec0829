//! Large outputs: groups and pages are bounded in bytes.

use std::convert::Infallible;
use std::env;
use std::fs;
use std::process::Command;

use async_map_task::AsyncMapTask;
use async_map_task::store::{PostgresStore, SqliteStore, Store};
use tokio::runtime::Builder;

use crate::cluster;
use crate::folder::Folder;
use crate::rigged::Rigged;
use crate::support::at_once;

/// Where the process finds the store.
const PLACE: &str = "ASYNC_MAP_TASK_LARGE_OUTPUTS";

const TEST: &str = "large_outputs::goes_on_in_a_process_of_its_own";

const LARGE: usize = 4_000_000;
const ITEMS: usize = 24;

/// How much memory a process may have used at most.
const MOST_KIB: u64 = 100_000;

#[tokio::test]
async fn groups_end_once_they_have_some_megabytes() {
    let store = Rigged::willing();
    let task = at_once(64).build().unwrap();
    let run = task.over(0..64).map(|_| async { Ok::<_, Infallible>("x".repeat(1_100_000)) });
    run.recover(&store, "r").for_each(|_| async {}).await.unwrap();
    let groups = store.groups();
    assert_eq!(groups.iter().sum::<usize>(), 64);
    assert!(groups.iter().all(|outcomes| *outcomes <= 4), "{groups:?}");
}

/// Goes on with a run of large outputs, and returns the most memory that this has taken, in KiB.
fn go_on_elsewhere(place: &str) -> u64 {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([TEST, "--exact", "--nocapture"]).env(PLACE, place);
    // What is freed goes back to the system. The allocator of glibc keeps some large blocks for each thread otherwise.
    let ended = command.env("MALLOC_MMAP_THRESHOLD_", "131072").output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success(), "{told}");
    let peak = told.lines().find_map(|line| line.split("peak: ").nth(1)).expect(&told);
    peak.trim().parse().unwrap()
}

/// This tests nothing without a store: it is where the process begins that a test has started.
#[test]
fn goes_on_in_a_process_of_its_own() {
    let Ok(place) = env::var(PLACE) else { return };
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        if place.starts_with("postgres:") {
            go_on(&PostgresStore::connect(&place).await.unwrap()).await;
        } else {
            go_on(&SqliteStore::open(&place).await.unwrap()).await;
        }
    });
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    eprintln!("\npeak: {}", peak.trim().trim_end_matches(" kB"));
}

async fn go_on(store: &impl Store) {
    let mut recovered = 0;
    let run = task().over(0..ITEMS).map(large).recover(store, "large");
    let summary = run.for_each(|outcome| {
        recovered += outcome.result.unwrap().len();
        async {}
    });
    assert_eq!(summary.await.unwrap().recovered, ITEMS);
    assert_eq!(recovered, ITEMS * LARGE);
}

fn task() -> AsyncMapTask {
    AsyncMapTask::builder().name("large").concurrency(16).build().unwrap()
}

async fn large(item: usize) -> Result<String, Infallible> {
    Ok(char::from(b'a' + (item % 26) as u8).to_string().repeat(LARGE))
}

/// A run of which all items have succeeded.
async fn finish(store: &impl Store) {
    let task = AsyncMapTask::builder().name("large").concurrency(2).build().unwrap();
    task.over(0..ITEMS).map(large).recover(store, "large").for_each(|_| async {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn going_on_with_large_outputs_takes_memory_for_a_few_in_sqlite() {
    let folder = Folder::new();
    let path = folder.file("runs.db");
    finish(&SqliteStore::open(&path).await.unwrap()).await;
    let peak = go_on_elsewhere(path.to_str().unwrap());
    eprintln!("SQLite, {ITEMS} outputs of {LARGE} bytes: {peak} KiB");
    assert!(peak < MOST_KIB, "{peak} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn going_on_with_large_outputs_takes_memory_for_a_few_in_postgres() {
    let url = cluster::shared().database().await;
    finish(&PostgresStore::connect(&url).await.unwrap()).await;
    let peak = go_on_elsewhere(&url);
    eprintln!("PostgreSQL, {ITEMS} outputs of {LARGE} bytes: {peak} KiB");
    assert!(peak < MOST_KIB, "{peak} KiB");
}
