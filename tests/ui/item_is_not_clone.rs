//! `map` clones an item that may be tried again.

use async_map_task::AsyncMapTask;

struct Ticket(u32);

fn main() {
    let task = AsyncMapTask::default();
    let _run = task.over([Ticket(7)]).map(|ticket| async move { Ok::<_, String>(ticket.0) });
}
