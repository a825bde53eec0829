//! Loops over `buffer_unordered`, without any protection.

use futures::StreamExt;

async fn site<const SITE: usize>(count: u64) -> u64 {
    let items = price::items::<0>(count);
    let outcomes = futures::stream::iter(items).map(|item| async move { price::work(item).await });
    let mut sum = 0;
    let mut outcomes = std::pin::pin!(outcomes.buffer_unordered(8));
    while let Some(outcome) = outcomes.next().await {
        match outcome {
            Ok(output) => sum += output.0,
            Err(error) => eprintln!("{error}"),
        }
    }
    sum
}

fn main() {
    price::run(async { price::sites!(site, price::count()) });
}
