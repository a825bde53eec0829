//! Awaited runs, each with its own map function and future.

async fn site<const SITE: usize>(count: u64) -> u64 {
    let items = price::items::<0>(count);
    match price::task().run(items, |item| async move { price::work(item).await }).await {
        Ok(result) => result.successful_results().map(|output| output.0).sum(),
        Err(error) => {
            eprintln!("{error}");
            0
        }
    }
}

fn main() {
    price::run(async { price::sites!(site, price::count()) });
}
