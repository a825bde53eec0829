//! A stream has a task of its own, which may live longer than the function that creates it.

use async_map_task::AsyncMapTask;
use futures::StreamExt;

#[tokio::main]
async fn main() {
    let unit = String::from("kg");
    let unit = &unit;
    let run = AsyncMapTask::default().over(0..10).map(move |n| async move { Ok::<_, String>(format!("{n} {unit}")) });
    println!("{}", run.stream().count().await);
}
