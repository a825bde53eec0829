//! The writes of a store in a file: in groups, regardless of its callers, and in turn with other processes.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use async_map_task::store::{RunStatus, SqliteStore, Store, StoreError};
use async_map_task::{AsyncMapTask, Cache, FailureReason, Recovery};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::alone::{is_alone, is_here, start};
use crate::folder::Folder;
use crate::support::{HOUR, at_once, checksummed, key, millis, pass, secs};
use crate::warnings::Warnings;

/// Less than the time for which SQLite waits for a locked file.
const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_sink_may_use_the_store_of_its_run() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file("runs.db")).await.unwrap();
    let (outer, inner) = (at_once(16).build().unwrap(), at_once(4).build().unwrap());
    let slow = |n: u64| async move {
        sleep(millis(5)).await;
        Ok::<_, String>(n)
    };
    let run = outer.over(0..64).map(slow).cache(&store, Cache::version("1")).for_each(|outcome| {
        let (inner, store) = (&inner, &store);
        async move {
            let run = inner.over(0..3_u64).map(|n| async move { Ok::<_, String>(n) });
            run.recover(store, format!("work-{}", outcome.index)).await.unwrap();
        }
    });
    assert_eq!(timeout(SOON, run).await.expect("it is blocked").unwrap().successes, 64);
    assert_eq!(store.runs().await.unwrap().len(), 64);
}

/// Every kind of call, begun and not polled, delays no other: of this store or of one in another process.
#[tokio::test]
async fn a_call_that_is_not_polled_delays_no_other() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file("runs.db")).await.unwrap();
    store.open_run("nightly", "resize", "a", HOUR).await.unwrap();
    let (checksummed, keys) = (checksummed("1"), (0..9).map(key).collect::<Vec<_>>());
    let mut left_alone = Vec::new();
    for key in &keys {
        left_alone.push(store.put_cached(key, &checksummed, None).map(drop).boxed());
        left_alone.push(store.claim(key, "a", HOUR, true).map(drop).boxed());
        left_alone.push(store.cached(key).map(drop).boxed());
        left_alone.push(store.successes("nightly", 0, 9).map(drop).boxed());
        left_alone.push(store.save_checkpoint("nightly", "a", 0, "hash", &checksummed).map(drop).boxed());
    }
    for call in &mut left_alone {
        assert!(call.now_or_never().is_none());
    }
    // The calls that have begun continue meanwhile.
    pass(millis(50));
    let other = SqliteStore::open(folder.file("runs.db")).await.unwrap();
    let others = async {
        for store in [&store, &other] {
            store.open_run("weekly", "resize", "b", HOUR).await.unwrap();
            store.put_cached(&key(10), &checksummed, None).await.unwrap();
            assert_eq!(store.cached(&key(10)).await.unwrap(), Some(checksummed.clone()));
            assert_eq!(store.runs().await.unwrap().len(), 2);
        }
    };
    timeout(SOON, others).await.expect("they are held up");
    drop(left_alone);
}

#[tokio::test]
async fn a_renewal_overtakes_earlier_writes() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file("runs.db")).await.unwrap();
    store.open_run("nightly", "resize", "a", HOUR).await.unwrap();
    let (state, done) = (checksummed("1"), AtomicUsize::new(0));
    let mut saves: FuturesUnordered<_> = (0..20_000)
        .map(|index| {
            let save = store.save_checkpoint("nightly", "a", index, "hash", &state);
            save.map(|saved| {
                saved.unwrap();
                done.fetch_add(1, SeqCst);
            })
        })
        .collect();
    // All are requested. Some may be done already.
    while saves.next().now_or_never().flatten().is_some() {}
    let at_once = done.load(SeqCst);
    let all = async { while saves.next().await.is_some() {} };
    let renewed = async {
        store.renew_run("nightly", "a", HOUR).await.unwrap();
        done.load(SeqCst) - at_once
    };
    let (before, ()) = tokio::join!(renewed, all);
    assert!(before < 10_000, "{before} saves were done before the renewal");
    assert_eq!(done.load(SeqCst), 20_000);
}

/// The calls of a group have the effect of one call after another.
#[tokio::test]
async fn grouped_calls_take_effect_in_order() {
    let folder = Folder::new();
    let store = SqliteStore::open(folder.file("runs.db")).await.unwrap();
    for round in 0..20 {
        let (run, one, two) = (format!("run {round}"), checksummed("1"), checksummed("2"));
        let (first, second) = (key(2 * round), key(2 * round + 1));
        let (opened, saved, saved_again, put, refused, granted, held, closed, lost) = tokio::join!(
            store.open_run(&run, "resize", "a", HOUR),
            store.save_checkpoint(&run, "a", 0, "hash", &one),
            store.save_checkpoint(&run, "a", 0, "hash", &two),
            store.put_cached(&first, &one, None),
            store.open_run(&run, "resize", "b", HOUR),
            store.claim(&second, "a", HOUR, true),
            store.claim(&second, "b", HOUR, true),
            store.close_run(&run, "a", &RunStatus::Succeeded),
            store.save_checkpoint(&run, "a", 0, "hash", &one),
        );
        opened.unwrap();
        saved.unwrap();
        saved_again.unwrap();
        put.unwrap();
        closed.unwrap();
        assert!(matches!(refused, Err(StoreError::Held { .. })), "{refused:?}");
        assert!(matches!(granted, Ok(async_map_task::store::Claim::Granted)), "{granted:?}");
        assert!(matches!(held, Ok(async_map_task::store::Claim::Held { .. })), "{held:?}");
        assert!(matches!(lost, Err(StoreError::LeaseLost { .. })), "{lost:?}");
        assert_eq!(store.checkpoint(&run, 0, "hash").await.unwrap(), Some(two));
        assert_eq!(store.cached(&first).await.unwrap(), Some(one));
    }
}

/// A library that makes every wait for the disk 15 ms longer.
const SLOW_DISK: &str = r#"
#define _GNU_SOURCE
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>
static void wait_for_disk(void) { struct timespec t = {0, 15000000}; nanosleep(&t, 0); }
int fsync(int fd) { wait_for_disk(); return syscall(SYS_fsync, fd); }
int fdatasync(int fd) { wait_for_disk(); return syscall(SYS_fdatasync, fd); }
"#;

fn slow_disk(folder: &Folder) -> PathBuf {
    let (source, library) = (folder.file("slow.c"), folder.file("slow.so"));
    std::fs::write(&source, SLOW_DISK).unwrap();
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    assert!(compiled.unwrap().success());
    library
}

#[test]
fn writes_to_a_slow_disk_succeed_without_warnings() {
    let folder = Folder::new();
    let test = "sqlite_writes::writes_to_a_slow_disk_succeed_without_warnings";
    let slow = |command: &mut Command| {
        command.env("LD_PRELOAD", slow_disk(&folder));
    };
    if is_alone(test, slow) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(write_three_thousand(&folder.file("runs.db")));
    }
}

async fn write_three_thousand(path: &Path) {
    const ITEMS: u64 = 3_000;
    let (warnings, _listening) = Warnings::listen();
    let begun = Instant::now();
    let store = SqliteStore::open(path).await.unwrap();
    let task = at_once(ITEMS as usize).build().unwrap();
    let recovered = task.over(0..ITEMS).map_with_context(|cx, n| async move {
        cx.checkpoint().save(&n).await?;
        Ok::<_, StoreError>(n)
    });
    let recovered = recovered.recover(&store, Recovery::run("nightly").lease(secs(2))).await.unwrap();
    assert_eq!(recovered.successes() as u64, ITEMS);
    for cached in [0, ITEMS] {
        let run = task.over(0..ITEMS).map(|n| async move { Ok::<_, String>(n) });
        let result = run.cache(&store, Cache::version("1").serialized().lease(secs(2))).await.unwrap();
        assert_eq!((result.successes() as u64, result.summary.cached as u64), (ITEMS, cached));
    }
    assert_eq!(store.successes("nightly", 0, 5_000).await.unwrap().len() as u64, ITEMS);
    assert_eq!(warnings.count("nothing"), 0);
    assert!(begun.elapsed() < SOON, "it took {:?}", begun.elapsed());
}

const SIX: &str = "sqlite_writes::six_processes_in_one_file_keep_their_leases";
const PATH: &str = "ASYNC_MAP_TASK_PATH";
const RUN: &str = "ASYNC_MAP_TASK_RUN";
const SECONDS: &str = "ASYNC_MAP_TASK_SECONDS";

/// `ASYNC_MAP_TASK_SECONDS` sets their duration. The default is eight.
#[test]
fn six_processes_in_one_file_keep_their_leases() {
    let seconds = env::var(SECONDS).map_or(8, |seconds| seconds.parse().unwrap());
    if is_here(SIX) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(save_for(secs(seconds)));
    }
    let folder = Folder::new();
    let processes: Vec<_> = (0..6)
        .map(|number| {
            start(SIX, |command| {
                command.env(PATH, folder.file("runs.db")).env(RUN, format!("run {number}"));
            })
        })
        .collect();
    for process in processes {
        let output = process.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        eprint!("{text}");
    }
}

/// Executes a run with items that save a checkpoint each, a hundred at a time, until it is cancelled.
async fn save_for(time: Duration) {
    let store = SqliteStore::open(env::var(PATH).unwrap()).await.unwrap();
    let (run, token) = (env::var(RUN).unwrap(), CancellationToken::new());
    let task = AsyncMapTask::builder().name("test").concurrency(100).build().unwrap();
    let saved = AtomicUsize::new(0);
    let items = task.over(0_u64..).map_with_context(|cx, n| {
        let saved = &saved;
        async move {
            cx.checkpoint().save(&n).await?;
            saved.fetch_add(1, SeqCst);
            Ok::<_, StoreError>(n)
        }
    });
    let items = items.cancellation_token(token.clone()).recover(&store, Recovery::run(&run).lease(secs(2)));
    let stop = async {
        sleep(time).await;
        token.cancel();
    };
    let (ended, ()) = tokio::join!(items.for_each(|_| async {}), stop);
    let error = ended.unwrap_err();
    assert!(matches!(error.reason(), FailureReason::Cancelled), "{:?}", error.reason());
    eprintln!("{run}: {} checkpoints in {time:?}", saved.load(SeqCst));
    assert!(saved.load(SeqCst) > 0);
}
