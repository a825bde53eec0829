//! A run does nothing until it is awaited.

#![deny(unused_must_use)]

use async_map_task::AsyncMapTask;

#[tokio::main]
async fn main() {
    let task = AsyncMapTask::default();
    task.run([1, 2, 3], |n| async move { Ok::<_, String>(n) });
}
