//! A function without `self` does not show the macro that it is in an `impl`. The compiler's own error names the cure.

use async_map_task::map_task;

struct Client;

impl Client {
    #[map_task]
    async fn double(n: u32) -> Result<u32, String> {
        Ok(n * 2)
    }
}

fn main() {}
