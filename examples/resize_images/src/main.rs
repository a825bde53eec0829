//! Resizes a folder of pictures on blocking threads, as many at once as there are cores.
//!
//! ```text
//! cargo run --release -p resize_images -- <input> <output> --width 224 --height 224
//! ```
//!
//! It shows `map_blocking`, retries of transient errors only, and a `min_success_ratio` of 0.95: a few broken files
//! are reported and do not stop the others. Without arguments, it creates 60 pictures, 3 of them broken, and resizes
//! those. Exit codes: 0 if enough pictures were resized, 1 if not, 2 for invalid arguments.

mod arguments;
mod picture;
mod samples;

use std::io::{self, Write};

use async_map_task::Event;
use clap::Parser;
use tokio_util::sync::CancellationToken;

use crate::arguments::Arguments;
use crate::picture::resize;

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let task = arguments.task();
    let (pictures, output) = arguments.pictures();
    let stop = CancellationToken::new();
    tokio::spawn(cancel_on_ctrl_c(stop.clone()));

    let size = arguments.size();
    let run = task
        .over(pictures.clone())
        .map_blocking(move |picture| resize(&picture, &output, size))
        .retry_if(|error| error.may_pass())
        .observe(|event: &Event<'_>| {
            if let Event::AttemptFailed { index, attempt, retry_in: Some(wait), .. } = event
                && let Some(picture) = pictures.get(*index)
            {
                tell(&format!("{}: attempt {attempt} failed, the next is in {wait:.1?}", picture.display()));
            }
        })
        .cancellation_token(stop);
    let mut failure = None;
    let result = run.await.unwrap_or_else(|error| {
        failure = Some(error.to_string());
        error.into_partial()
    });
    for (picture, error) in
        result.errors.iter().filter_map(|(index, error)| Some((pictures.get(*index)?, error)))
    {
        tell(&format!("{}: {error}", picture.display()));
    }
    if let Some(failure) = &failure {
        tell(failure);
    }
    tell(&result.summary.to_string());
    // A return would wait for all blocking threads, and one of them may hang in a read.
    std::process::exit(i32::from(failure.is_some()))
}

/// Prints one line on stderr. An error is ignored: stderr may be closed.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The first Ctrl-C stops the run, which finishes the running pictures. A second one ends the program.
async fn cancel_on_ctrl_c(stop: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_ok() {
        stop.cancel();
    }
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(130);
    }
}
