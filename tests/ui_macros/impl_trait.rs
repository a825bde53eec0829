//! The types of the function are named.

use async_map_task::map_task;

#[map_task]
async fn show(item: impl ToString) -> Result<String, String> {
    Ok(item.to_string())
}

#[map_task]
async fn count(item: Vec<impl Sized>) -> Result<impl Sized, String> {
    Ok(item.len())
}

fn main() {}
