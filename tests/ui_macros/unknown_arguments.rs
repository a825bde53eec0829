//! An unknown argument, and options that belong elsewhere.

use async_map_task::map_task;

#[map_task(concurency = 8, timeout = "5s", retry_if = is_transient, limiter = api)]
async fn double(n: u32) -> Result<u32, String> {
    Ok(n * 2)
}

fn main() {
    let _run = double::run([1, 2, 3]);
}
