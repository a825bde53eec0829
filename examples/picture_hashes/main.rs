//! Prints a hash of how each picture of a tree looks. What was computed before comes from a cache, so that the second
//! time costs next to nothing.
//!
//! ```text
//! cargo run --release --features sqlite --example picture_hashes -- ~/Pictures --store hashes.db > hashes
//! sort hashes | uniq --check-chars=16 --all-repeated=separate    # the pictures that look alike
//! ```
//!
//! It shows `cache`. An output is found by the version and by what the item is, here a path, a size and a time of
//! change. So a picture that has changed is computed, and all of them are with another `--version`, which is what to say
//! when the function gives something else than it did. The summary tells how many came from the cache. The
//! cache is `serialized`: start it twice at the same time, and each picture is computed by one of the two.
//!
//! It exits with 0 where every picture has a hash, with 1 where one has none, and with 2 on bad arguments.

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
    // A return would wait for all blocking threads, and one may be in a read that is never answered.
    std::process::exit(code)
}

/// Says whether all has gone well.
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

/// The hash of each picture that has one, and its path.
fn print<E>(paths: &[PathBuf], result: &MapTaskResult<u64, E>) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for (path, look) in paths.iter().zip(&result.results) {
        if let Some(look) = look {
            writeln!(out, "{look:016x}  {}", path.display())?;
        }
    }
    out.flush()
}

/// One line on stderr. Whoever has closed it does not want to know.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The first Ctrl-C ends the run; what was computed by then is kept. A second one ends the program.
async fn cancel_on_ctrl_c(stop: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_ok() {
        stop.cancel();
    }
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(130);
    }
}
