//! `over` takes a list. A stream has a method of its own.

use async_map_task::AsyncMapTask;
use futures::stream;

fn main() {
    let task = AsyncMapTask::default();
    let numbers = stream::iter([1, 2, 3]);
    let _items = task.over(numbers);
}
