//! A run in the background may be on another thread.

use std::rc::Rc;

use async_map_task::AsyncMapTask;

#[tokio::main]
async fn main() {
    let task = AsyncMapTask::default();
    let handle = task.run([1, 2, 3], |n| async move { Ok::<_, String>(Rc::new(n)) }).spawn();
    drop(handle.await);
}
