//! Awaited runs, with distinct types of items and outputs for each call site.

async fn site<const SITE: usize>(count: u64) -> u64 {
    let items = price::items::<SITE>(count);
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
