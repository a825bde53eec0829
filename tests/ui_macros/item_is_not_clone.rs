//! A retry needs a clone of the item.

use async_map_task::map_task;

struct Ticket;

#[map_task(retries = 1)]
async fn enter(_: Ticket) -> Result<(), String> {
    Ok(())
}

fn main() {}
