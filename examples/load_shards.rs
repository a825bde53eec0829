//! Loads the shards of a data set, several at once, and compares each with its checksum.
//!
//! ```text
//! cargo run --example load_shards [<dir>]
//! ```
//!
//! It shows partial binding: the function takes a directory, a name and a checksum, and the closure binds the
//! directory. It also shows two lists as one: `zip_exact` refuses lists of different lengths before the first file is
//! read. `Iterator::zip` would ignore the surplus.

#![allow(clippy::print_stdout, reason = "an example shows what it does by printing it")]

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use anyhow::{Context, ensure};
use async_map_task::{AsyncMapTask, zip_exact};
use sha2::{Digest, Sha256};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let dir = env::args_os().nth(1).map_or_else(default_dir, PathBuf::from);
    let names = shards_in(&dir)?;
    let sums = fs::read_to_string(dir.join("SHA256SUMS")).context("cannot read SHA256SUMS")?;
    let sums: Vec<_> = sums.lines().filter_map(|line| line.split_whitespace().next()).collect();

    let task = AsyncMapTask::builder().name("load_shards").concurrency(3).build()?;
    let shards = task.over(zip_exact(&names, sums)?).map(|(name, sum)| load(&dir, name, sum)).await?;

    for (name, values) in names.iter().zip(shards.successful_results()) {
        println!("{name}: {} values", values.len());
    }
    let values: Vec<u64> = shards.into_successful_results().into_iter().flatten().collect();
    let sum: u64 = values.iter().sum();
    println!("{} values in {} shards, their sum is {sum}", values.len(), names.len());
    Ok(())
}

/// Returns the values of one shard, if its bytes are the expected ones.
async fn load(dir: &Path, name: &str, expected: &str) -> anyhow::Result<Vec<u64>> {
    let bytes = tokio::fs::read(dir.join(name)).await?;
    let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(found == expected, "the SHA-256 of {name} must be {expected}, got {found}");
    let values = std::str::from_utf8(&bytes)?.lines().skip(1).map(|line| {
        let (_, value) = line.split_once(',').with_context(|| format!("{name} has no value in {line:?}"))?;
        value.parse().with_context(|| format!("{name} has the value {value:?}"))
    });
    values.collect()
}

fn shards_in(dir: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = entries.collect::<io::Result<Vec<_>>>()?;
    names.retain(|name| name.ends_with(".csv"));
    names.sort();
    Ok(names)
}

fn default_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/shards")
}
