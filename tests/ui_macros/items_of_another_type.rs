//! The items are those of the function.

use async_map_task::map_task;

#[map_task]
async fn clean_text(text: String) -> Result<String, String> {
    Ok(text)
}

fn main() {
    let _run = clean_text::run(["a", "b"]);
    let _stream = clean_text::run(futures::stream::iter([String::new()]));
}
