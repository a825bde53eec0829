//! A duration is text with a unit, and every value is a literal.

use async_map_task::map_task;

const WORKERS: usize = 8;

#[map_task(concurrency = WORKERS, timeout_per_item = 30, retries = -1, retry_delay = "5", fail_fast = "yes", max_failures)]
async fn double(n: u32) -> Result<u32, String> {
    Ok(n * 2)
}

fn main() {
    let _run = double::run([1, 2, 3]);
}
