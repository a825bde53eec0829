//! A map function returns a `Result`.

use async_map_task::AsyncMapTask;

fn main() {
    let task = AsyncMapTask::default();
    let _run = task.run([1, 2, 3], |n| async move { n * 2 });
}
