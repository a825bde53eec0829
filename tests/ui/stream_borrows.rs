use async_map_task::AsyncMapTask;
use futures::StreamExt;

async fn count(suffix: &str) -> usize {
    let run = AsyncMapTask::default().over(0..10).map(|n| async move { Ok::<_, String>(format!("{n}{suffix}")) });
    run.stream().count().await
}

fn main() {
    drop(count("a"));
}
