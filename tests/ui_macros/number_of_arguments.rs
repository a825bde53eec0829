//! The function takes an item, or a context and an item.

use async_map_task::{ItemContext, map_task};

#[map_task]
async fn none() -> Result<u32, String> {
    Ok(1)
}

#[map_task]
async fn only_context(cx: ItemContext) -> Result<usize, String> {
    Ok(cx.index())
}

#[map_task]
async fn two(a: u32, b: u32) -> Result<u32, String> {
    Ok(a + b)
}

#[map_task]
async fn three(cx: ItemContext, a: u32, b: u32) -> Result<u32, String> {
    Ok(a + b + cx.attempt())
}

fn main() {}
