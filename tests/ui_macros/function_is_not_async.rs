//! The function is an `async fn`.

use async_map_task::map_task;

#[map_task]
fn double(n: u32) -> Result<u32, String> {
    Ok(n * 2)
}

#[map_task]
struct Double;

fn main() {}
