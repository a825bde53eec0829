//! An argument that is given twice, and pairs that contradict each other.

use async_map_task::map_task;

#[map_task(concurrency = 2, unbounded_concurrency, early_success, cancel_grace = "2s", run_timeout = "1s")]
async fn double(n: u32) -> Result<u32, String> {
    Ok(n * 2)
}

#[map_task(retries = 2, retries = 3, allow_failures, min_success_ratio = 0.5)]
async fn triple(n: u32) -> Result<u32, String> {
    Ok(n * 3)
}

fn main() {}
