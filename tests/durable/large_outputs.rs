//! Large outputs: groups and pages are bounded in bytes.

use std::convert::Infallible;
use std::env;
use std::fs;
use std::process::Command;

use async_map_task::AsyncMapTask;
use async_map_task::store::{PostgresStore, SqliteStore, Store};

use crate::cluster;
use crate::folder::Folder;
use crate::rigged::Rigged;
use crate::support::{at_once, workers};

/// The environment variable with the store of the process.
const PLACE: &str = "ASYNC_MAP_TASK_LARGE_OUTPUTS";

const TEST: &str = "large_outputs::resumes_in_another_process";

/// The number of outputs and the bytes of each: `200x20000000`. If it is not set, the sizes are small enough for a
/// daily test.
const SIZE: &str = "ASYNC_MAP_TASK_LARGE_OUTPUTS_SIZE";

/// The maximum memory that a process may use: without outputs, and for a number of outputs or of pages of 4 MiB, whichever
/// is larger. The allocator of glibc keeps memory for each thread that has had a large output.
const MOST_KIB: u64 = 20_000;
const MOST_OUTPUTS: u64 = 14;
const PAGE_KIB: u64 = 4_096;

/// The number of outputs, and the bytes of each.
fn size() -> (usize, usize) {
    let size = env::var(SIZE).unwrap_or_else(|_| "12x20000000".to_owned());
    let (items, bytes) = size.split_once('x').unwrap();
    (items.parse().unwrap(), bytes.parse().unwrap())
}

#[tokio::test]
async fn groups_are_bounded_in_bytes() {
    let store = Rigged::willing();
    let task = at_once(64).build().unwrap();
    let run = task.over(0..64).map(|_| async { Ok::<_, Infallible>("x".repeat(1_100_000)) });
    run.recover(&store, "r").for_each(|_| async {}).await.unwrap();
    let groups = store.groups();
    assert_eq!(groups.iter().sum::<usize>(), 64);
    assert!(groups.iter().all(|outcomes| *outcomes <= 4), "{groups:?}");
}

/// Continues a run of large outputs, and returns the peak of the memory that this has taken, in KiB.
fn go_on_elsewhere(place: &str) -> u64 {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([TEST, "--exact", "--nocapture"]).env(PLACE, place);
    let ended = command.output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success(), "{told}");
    let peak = told.lines().find_map(|line| line.split("peak: ").nth(1)).expect(&told);
    peak.trim().parse().unwrap()
}

/// The entry point of a process that a test has started. Without a store it tests nothing.
#[test]
fn resumes_in_another_process() {
    let Ok(place) = env::var(PLACE) else { return };
    let runtime = workers(2);
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
    let ((items, bytes), mut recovered) = (size(), 0);
    let run = task().over(0..items).map(large).recover(store, "large");
    let summary = run.for_each(|outcome| {
        recovered += outcome.result.unwrap().len();
        async {}
    });
    assert_eq!(summary.await.unwrap().recovered, items);
    assert_eq!(recovered, items * bytes);
}

fn task() -> AsyncMapTask {
    AsyncMapTask::builder().name("large").concurrency(16).build().unwrap()
}

async fn large(item: usize) -> Result<String, Infallible> {
    Ok(char::from(b'a' + (item % 26) as u8).to_string().repeat(size().1))
}

fn check_peak(place: &str, peak: u64) {
    let (items, bytes) = size();
    let most = MOST_KIB + MOST_OUTPUTS * (bytes as u64 / 1024).max(PAGE_KIB);
    eprintln!("{place}, {items} outputs of {bytes} bytes: {peak} KiB, allowed are {most}");
    assert!(peak < most, "{peak} KiB");
}

/// Runs items that all succeed.
async fn finish(store: &impl Store) {
    let task = AsyncMapTask::builder().name("large").concurrency(2).build().unwrap();
    task.over(0..size().0).map(large).recover(store, "large").for_each(|_| async {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn resuming_large_outputs_takes_bounded_memory_in_sqlite() {
    let folder = Folder::new();
    let path = folder.file("runs.db");
    finish(&SqliteStore::open(&path).await.unwrap()).await;
    let peak = go_on_elsewhere(path.to_str().unwrap());
    check_peak("SQLite", peak);
}

#[tokio::test(flavor = "multi_thread")]
async fn resuming_large_outputs_takes_bounded_memory_in_postgres() {
    let url = cluster::shared().database().await;
    finish(&PostgresStore::connect(&url).await.unwrap()).await;
    let peak = go_on_elsewhere(&url);
    check_peak("PostgreSQL", peak);
}
