//! A slow reader of a million outcomes.

use std::convert::Infallible;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use anyhow::Result;
use async_map_task::AsyncMapTask;
use futures::StreamExt;
use tokio::task::yield_now;

use crate::table::Facts;

/// Without optimizations, a tenth of a million takes as long.
const ITEMS: usize = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };

/// The outcomes between two pauses of the reader.
const PAUSE_EVERY: usize = ITEMS / 20;

const CONCURRENCY: usize = 16;

/// The outcomes of a stream that wait for their reader, as the guide has it. An item is pulled when a permit is free.
const MOST_AHEAD: usize = 2 * CONCURRENCY - 1;

/// The reader lets the run continue after each outcome. After each twentieth of them, it reads nothing until the run stands still.
pub(crate) async fn slow_reader() -> Result<Facts> {
    let (taken, most_ahead) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let task = AsyncMapTask::builder().concurrency(CONCURRENCY).build()?;
    let (of_source, most) = (Arc::clone(&taken), Arc::clone(&most_ahead));
    let source = (0..ITEMS).inspect(move |item| {
        most.fetch_max(item + 1 - of_source.load(Relaxed), Relaxed);
    });
    let mut outcomes = task
        .over(source)
        .map(|item| async move {
            yield_now().await;
            // A million of them have 256 MB.
            Ok::<_, Infallible>(vec![item as u8; 256])
        })
        .stream();

    let (mut pauses, mut most_waiting, mut memory) = (0, 0, Vec::new());
    while let Some(outcome) = outcomes.next().await {
        outcome?;
        let taken = taken.fetch_add(1, Relaxed) + 1;
        yield_now().await;
        if taken % PAUSE_EVERY == 0 && taken < ITEMS {
            while outcomes.progress().running > 0 {
                yield_now().await;
            }
            pauses += 1;
            most_waiting = most_waiting.max(outcomes.progress().successes - taken);
            memory.extend(resident_memory());
        }
    }
    let facts = Facts::default()
        .equal("outcomes read", taken.load(Relaxed), ITEMS)
        .at_most("most items pulled and not read", most_ahead.load(Relaxed), MOST_AHEAD)
        .at_most("most outcomes that waited in 19 pauses", most_waiting, MOST_AHEAD)
        .equal("pauses in which the run stood still", pauses, 19);
    // Linux has the file. The bound is less than a byte for each of a million items.
    let Some(first) = memory.first() else { return Ok(facts) };
    let growth = memory.iter().max().unwrap_or(first) - first;
    Ok(facts.at_most("growth of the resident memory after the first pause, kB", growth, 900))
}

/// Returns the resident memory of this process in kB.
fn resident_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let size = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    size.trim().strip_suffix(" kB")?.parse().ok()
}
