//! Runs of batches that are killed: each row is in the table once, and a call is made again only for items without a record.
//!
//! A call inserts its rows, and then the run records its items. A process can be killed between the two commits, and the next
//! process makes the call again. So the statement leaves the rows that the table has.

use async_map_task::store::{PostgresStore, Recorded, SqliteStore, Store};

use super::{Figures, ITEMS, Kind, Phase, check_store, kill_and_resume};
use crate::cluster;
use crate::folder::Folder;
use crate::process::{Output, Place, Row, Rows, output};

/// The number of kills of one test. Set `BATCH_KILLS` for more.
fn kills() -> u32 {
    std::env::var("BATCH_KILLS").map_or(50, |kills| kills.parse().unwrap())
}

/// Checks that the table has one row for each item of each run. Returns the number of items whose call was made again although
/// their rows were in the table: a process was killed between the two commits.
async fn check_rows(rows: &Rows, store: &impl Store) -> usize {
    let mut called_again = 0;
    for run in store.runs().await.unwrap() {
        let table = rows.of_run(&run.run_id).await;
        let expected: Vec<(u64, u64)> = (0..ITEMS).map(|item| (item, output(item).value)).collect();
        let found: Vec<(u64, u64)> = table.iter().map(|(item, output)| (*item, output.value)).collect();
        assert_eq!(found, expected, "{}", run.run_id);
        let records = store.successes(&run.run_id, 0, ITEMS as u32 + 1).await.unwrap();
        let recorded = records.into_iter().map(|record| {
            let Recorded::Succeeded { output } = record.recorded else { unreachable!() };
            (record.index, serde_json::from_str::<Output>(&output.json).unwrap())
        });
        let recorded: Vec<Row> = recorded.collect();
        assert_eq!(recorded.len(), table.len(), "{}", run.run_id);
        // The row is of the first call that was committed, and the record of the last.
        called_again += table.iter().zip(&recorded).filter(|(row, record)| row != record).count();
    }
    called_again
}

async fn survive_kills(name: &str, place: &Place, store: &impl Store) {
    let rows = Rows::create(place).await;
    let figures = kill_and_resume(place, Kind::Batches, kills());
    check_store(store, &figures).await;
    let called_again = check_rows(&rows, store).await;
    eprintln!("batches in {name}: {figures}; {called_again} items were called again for rows in the table");
    let Figures { kills, by_phase, .. } = figures;
    let running = by_phase[Phase::Running as usize];
    assert!(running >= kills / 10, "{running} of {kills} kills came between the first and the last call");
    assert!(called_again > 0, "no kill came between the two commits");
}

#[tokio::test]
async fn batches_that_are_killed_insert_each_row_once_in_sqlite() {
    let folder = Folder::new();
    let path = folder.file("runs.db");
    let store = SqliteStore::open(&path).await.unwrap();
    survive_kills("SQLite", &Place::Sqlite(path), &store).await;
}

#[tokio::test]
async fn batches_that_are_killed_insert_each_row_once_in_postgres() {
    let url = cluster::shared().database().await;
    let store = PostgresStore::connect(&url).await.unwrap();
    survive_kills("PostgreSQL", &Place::Postgres(url), &store).await;
}
