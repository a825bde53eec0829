//! On several cores, a value may move to another thread.

use std::rc::Rc;

use async_map_task::AsyncMapTask;

fn count(names: Vec<Rc<str>>) {
    let run = AsyncMapTask::default().over(names).map(|name| async move { Ok::<_, String>(name.len()) });
    let _run = run.parallel();
}

fn main() {
    count(Vec::new());
}
