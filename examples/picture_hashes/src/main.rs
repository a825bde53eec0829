//! Prints a perceptual hash of each picture in a tree. Hashes of earlier runs come from a cache, so a second run costs
//! next to nothing.
//!
//! ```text
//! cargo run --release -p picture_hashes -- ~/Pictures --store hashes.db > hashes
//! sort hashes | uniq --check-chars=16 --all-repeated=separate    # the pictures that look alike
//! ```
//!
//! It shows `cache`. An output is found by the version and by the item, here a path, a size and a modification time. So
//! a picture that has changed is hashed again. Another `--version` hashes all pictures again: use it after the function
//! has changed. The account shows how many hashes came from the cache. The cache is `serialized`: if two processes run
//! at the same time, each picture is hashed by one of them.
//!
//! Exit codes: 0 if every picture has a hash, 1 if not, 2 for invalid arguments.

mod arguments;
mod picture;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use async_map_task::store::SqliteStore;
use async_map_task::{Cache, MapTaskResult};
use clap::Parser;
use tokio_util::sync::CancellationToken;

use crate::arguments::Arguments;
use crate::picture::{Picture, look};

#[tokio::main]
async fn main() {
    let stop = CancellationToken::new();
    tokio::spawn(cancel_on_ctrl_c(stop.clone()));
    let code = match print_hashes(Arguments::parse(), stop).await {
        Ok(all_well) => i32::from(!all_well),
        Err(error) => {
            tell(&format!("{error:#}"));
            1
        }
    };
    // A return would wait for all blocking threads, and one of them may hang in a read.
    std::process::exit(code)
}

/// Returns `true` if every picture has a hash.
async fn print_hashes(arguments: Arguments, stop: CancellationToken) -> Result<bool> {
    let (task, pictures) = (arguments.task(), arguments.pictures());
    let paths: Vec<PathBuf> = pictures.iter().map(|picture| picture.path.clone()).collect();
    let store = SqliteStore::open(&arguments.store).await.context("cannot open the store")?;
    let run = task
        .over(pictures)
        .map_blocking(|picture: Picture| look(&picture.path))
        .cache(&store, Cache::version(arguments.version).serialized())
        .cancellation_token(stop);
    let mut failure = None;
    let result = run.await.unwrap_or_else(|error| {
        failure = Some(error.to_string());
        error.into_partial()
    });
    print(&paths, &result).context("cannot print the hashes")?;
    for (path, error) in result.errors.iter().filter_map(|(index, error)| Some((paths.get(*index)?, error))) {
        tell(&format!("{}: {error}", path.display()));
    }
    if let Some(failure) = &failure {
        tell(failure);
    }
    tell(&result.summary.to_string());
    Ok(failure.is_none() && result.failures() == 0)
}

/// Prints the hash and the path of each picture that has a hash.
fn print<E>(paths: &[PathBuf], result: &MapTaskResult<u64, E>) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for (path, look) in paths.iter().zip(&result.results) {
        if let Some(look) = look {
            writeln!(out, "{look:016x}  {}", path.display())?;
        }
    }
    out.flush()
}

/// Prints one line on stderr. An error is ignored: stderr may be closed.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The first Ctrl-C stops the run, and finished hashes are kept. A second one ends the program.
async fn cancel_on_ctrl_c(stop: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_ok() {
        stop.cancel();
    }
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(130);
    }
}
