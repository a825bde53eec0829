//! The lines of a reader are `Result`s. The second error is about the closure, and has no text of the crate.

use std::io::{BufRead, Cursor};

use async_map_task::AsyncMapTask;

fn main() {
    let task = AsyncMapTask::default();
    let lines = Cursor::new("1\n2\n").lines();
    let _run = task.over(lines).map(|line| async move { line.parse::<u32>() });
}
