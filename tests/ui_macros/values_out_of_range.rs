//! The values are checked as `build()` checks them.

use async_map_task::map_task;

#[map_task(
    concurrency = 0,
    min_success_ratio = 1.5,
    retries = 2,
    retry_multiplier = 0.5,
    retry_jitter = -0.1,
    timeout_per_attempt = "30s",
    timeout_per_item = "10s",
    run_timeout = "0s",
)]
async fn double(n: u32) -> Result<u32, String> {
    Ok(n * 2)
}

fn main() {
    let _run = double::run([1, 2, 3]);
}
