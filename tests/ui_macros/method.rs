//! A method cannot be a task.

use async_map_task::map_task;

struct Client;

impl Client {
    #[map_task(concurrency = 8)]
    async fn fetch(&self, url: String) -> Result<String, String> {
        Ok(url)
    }

    #[map_task]
    async fn convert(item: u32) -> Result<Self, String> {
        Err(item.to_string())
    }
}

fn main() {}
