//! The function returns a `Result`.

use async_map_task::map_task;

#[map_task]
async fn double(n: u32) -> u32 {
    n * 2
}

#[map_task]
async fn print(n: u32) {
    println!("{n}");
}

fn main() {
    let _run = double::run([1, 2, 3]);
}
