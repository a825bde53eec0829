//! A block that ends with `;` returns no `Result`.

use async_map_task::AsyncMapTask;

fn main() {
    let task = AsyncMapTask::default();
    let _run = task.over([1, 2, 3]).map(|n| async move {
        println!("{n}");
    });
}
