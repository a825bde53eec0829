//! The options of a run come after the map function, which has the type of the error.

use std::io;

use async_map_task::AsyncMapTask;

async fn load(name: &str) -> io::Result<usize> {
    Ok(name.len())
}

#[tokio::main]
async fn main() {
    let task = AsyncMapTask::default();
    let sizes = task.over(["a", "b"]).retry_if(|error| error.kind() == io::ErrorKind::TimedOut).map(load).await;
    drop(sizes);
}
