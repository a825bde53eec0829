//! The compiler infers the parameter of an observer from the body of the closure.

use async_map_task::{AsyncMapTask, Event};

fn main() {
    let run = AsyncMapTask::default().run([1, 2, 3], |n| async move { Ok::<_, String>(n) });
    let _run = run.observe(|event| {
        if let Event::ItemStarted { index } = event {
            println!("{index}");
        }
    });
}
