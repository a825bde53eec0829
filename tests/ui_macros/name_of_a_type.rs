//! The struct would hide a type.

use async_map_task::map_task;

#[map_task]
async fn u64(text: &str) -> Result<u32, std::num::ParseIntError> {
    text.parse()
}

fn main() {}
