//! Nothing is mapped.

fn main() {
    let items = price::items::<0>(price::count());
    price::run(async move { items.iter().map(|item| item.0).sum() });
}
