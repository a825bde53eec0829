//! `map` needs items that it can try again.

use async_map_task::AsyncMapTask;

struct Ticket(u32);

#[tokio::main]
async fn main() {
    let task = AsyncMapTask::default();
    let _run = task.over([Ticket(7)]).map(|ticket| async move { Ok::<_, String>(ticket.0) });
}
