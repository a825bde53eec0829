//! The function of `map_batches` returns a result for each item.

use async_map_task::AsyncMapTask;

async fn insert(_rows: Vec<u32>) -> Result<(), String> {
    Ok(())
}

fn main() {
    let task = AsyncMapTask::default();
    let _run = task.over([1, 2, 3]).map_batches(2, insert);
}
