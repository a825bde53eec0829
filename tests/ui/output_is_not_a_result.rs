//! A map function says whether it has succeeded.

use async_map_task::AsyncMapTask;

#[tokio::main]
async fn main() {
    let task = AsyncMapTask::default();
    let _run = task.run([1, 2, 3], |n| async move { n * 2 });
}
