//! Damaged files: refused, or read without a wrong output; never a panic.

use std::fs;
use std::path::Path;
use std::time::Duration;

use async_map_task::store::{CacheKey, Checksummed, Record, Recorded, SqliteStore, Store, StoreError};
use sha2::{Digest, Sha256};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::folder::Folder;
use crate::random::Random;
use crate::support::HOUR;

const RECORDS: u64 = 2000;
const CASES: u64 = 400;

/// A file and its log, as after a crash.
struct Files {
    database: Vec<u8>,
    log: Vec<u8>,
}

/// The results of the cases.
#[derive(Debug, Default)]
struct Counts {
    refused_at_open: u32,
    refused_at_read: u32,
    refused_by_checksum: u32,
    all_right: u32,
    /// Read without an error, but not complete: the end of the log was cut off or is not valid.
    some_missing: u32,
}

/// The checksum over all fields of a record, as a run computes it.
fn checksum(index: u64, json: &str) -> String {
    let digest = Sha256::digest(format!("{index} {json}"));
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn seal(index: u64, json: String) -> Checksummed {
    Checksummed { checksum: checksum(index, &json), json }
}

fn record(index: u64) -> Record {
    Record {
        index,
        item_hash: format!("{index:064x}"),
        attempts: 1,
        elapsed: Duration::from_micros(index),
        recorded: Recorded::Succeeded {
            output: seal(index, format!("{{\"row\":{index},\"sum\":{}}}", index * 7919)),
        },
    }
}

fn key(index: u64) -> CacheKey {
    CacheKey { task: "embed".to_owned(), version: "1".to_owned(), item_hash: format!("{index:064x}") }
}

/// The files of a store with all records in it, of which the first `checkpointed` have moved from the log to the
/// file.
async fn files(checkpointed: u64) -> Files {
    let folder = Folder::new();
    let path = folder.file("runs.db");
    let store = SqliteStore::open(&path).await.unwrap();
    store.open_run("nightly", "resize", "a", HOUR).await.unwrap();
    for first in (0..RECORDS).step_by(100) {
        if first == checkpointed {
            move_log(&path).await;
        }
        let records: Vec<_> = (first..first + 100).map(record).collect();
        store.commit("nightly", "a", &records).await.unwrap();
        store.put_cached(&key(first), &seal(first, format!("[{first}]")), None).await.unwrap();
        store
            .save_checkpoint("nightly", "a", RECORDS + first, "hash", &seal(first, "1".to_owned()))
            .await
            .unwrap();
    }
    if checkpointed == RECORDS {
        move_log(&path).await;
    }
    // While it is open, so that nothing is cleaned up.
    Files { database: fs::read(&path).unwrap(), log: fs::read(folder.file("runs.db-wal")).unwrap() }
}

async fn move_log(path: &Path) {
    let mut connection = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    let moved: (i64, i64, i64) =
        sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut connection).await.unwrap();
    assert_eq!(moved.0, 0, "the log was busy");
    connection.close().await.unwrap();
}

/// Returns a number below this one.
fn below(random: &mut Random, bound: usize) -> usize {
    random.below(bound as u64) as usize
}

/// Cuts the bytes off, flips one bit, overwrites a few bytes, or clears a sector, at a random position.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    let place = below(random, bytes.len());
    match random.below(4) {
        0 => bytes.truncate(place),
        1 => bytes[place] ^= 1 << random.below(8),
        2 => {
            let end = (place + 1 + below(random, 64)).min(bytes.len());
            bytes[place..end].fill_with(|| random.next() as u8);
        }
        _ => {
            let sector = place / 512 * 512;
            let end = (sector + 512).min(bytes.len());
            bytes[sector..end].fill(0);
        }
    }
}

/// Checks one damaged store. An output that is read with its checksum equals the written one.
async fn read(path: &Path, counts: &mut Counts) {
    let store = match SqliteStore::open(path).await {
        Ok(store) => store,
        Err(error) => {
            assert_corrupt(&error);
            return counts.refused_at_open += 1;
        }
    };
    let (found, refused) = match everything(&store).await {
        Ok(found) => found,
        Err(error) => {
            assert_corrupt(&error);
            return counts.refused_at_read += 1;
        }
    };
    // It may accept writes as well, or refuse them.
    if let Err(error) = store.commit("nightly", "a", &[record(0), record(RECORDS - 1)]).await {
        assert_corrupt(&error);
    }
    match (refused, found == RECORDS + RECORDS / 100) {
        (0, true) => counts.all_right += 1,
        (0, false) => counts.some_missing += 1,
        _ => counts.refused_by_checksum += 1,
    }
}

/// Returns the number of outputs that are as they were written, and the number that were refused by their checksums.
async fn everything(store: &SqliteStore) -> Result<(u64, u64), StoreError> {
    let (mut found, mut refused) = (0, 0);
    store.runs().await?;
    let mut from = 0;
    loop {
        let page = store.successes("nightly", from, 700).await?;
        let Some(last) = page.last() else { break };
        from = last.index + 1;
        for read in page {
            let Recorded::Succeeded { output } = &read.recorded else { panic!("{read:?} is no success") };
            if output.checksum != checksum(read.index, &output.json) {
                refused += 1;
            } else {
                assert_eq!(read.recorded, record(read.index).recorded, "a wrong output");
                found += 1;
            }
        }
    }
    for index in (0..RECORDS).step_by(100) {
        if let Some(value) = store.cached(&key(index)).await? {
            if value.checksum != checksum(index, &value.json) {
                refused += 1;
            } else {
                assert_eq!(value.json, format!("[{index}]"), "a wrong output");
                found += 1;
            }
        }
        store.checkpoint("nightly", RECORDS + index, "hash").await?;
    }
    Ok((found, refused))
}

/// Any other message, such as that a file is locked or a thread has panicked, would mislead the user.
fn assert_corrupt(error: &StoreError) {
    assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_gives_no_wrong_output() {
    let states = [files(0).await, files(RECORDS / 2).await, files(RECORDS).await];
    assert!(states[0].log.len() > 100_000 && states[2].database.len() > 100_000 && states[2].log.is_empty());
    let folder = Folder::new();
    let mut random = Random(20_261_122);
    let mut counts = Counts::default();
    for case in 0..CASES {
        let state = &states[below(&mut random, 3)];
        let (mut database, mut log) = (state.database.clone(), state.log.clone());
        // If everything is in one of the two, that one is damaged.
        if log.is_empty() || (database.len() > 100_000 && random.below(2) == 0) {
            damage(&mut database, &mut random);
        } else {
            damage(&mut log, &mut random);
        }
        let path = folder.file(&format!("{case}.db"));
        fs::write(&path, database).unwrap();
        fs::write(folder.file(&format!("{case}.db-wal")), log).unwrap();
        read(&path, &mut counts).await;
    }
    eprintln!("{CASES} damaged files: {counts:?}");
    let Counts { refused_at_open, refused_at_read, refused_by_checksum, all_right, some_missing } = counts;
    assert_eq!(
        u64::from(refused_at_open + refused_at_read + refused_by_checksum + all_right + some_missing),
        CASES
    );
    for (count, what) in [
        (refused_at_open, "refused at open"),
        (refused_by_checksum, "refused by checksum"),
        (all_right, "all right"),
        (some_missing, "some missing"),
    ] {
        assert!(count > 0, "no case was {what}: the damage does not reach far enough to prove anything");
    }
}
