//! Proves the claims of the README, against a server on loopback and a process that is killed.
//!
//! ```text
//! cargo run --release --example proof
//! ```
//!
//! It prints a table with a row for each measurement, and takes about ten seconds. The server is `axum` with real
//! connections, and counts on its own what reaches it. Most claims are decided by counts and by order: the server holds its
//! answers until a state is reached, so a busy machine is slower and has the same rows. Exit codes: 0 if all claims hold, 1 if
//! one fails, 2 for invalid arguments.
//!
//! The claim about crashes needs the example `resume_batch`, which is built first, with its database. This takes a minute or
//! two, once.

mod bound;
mod client;
mod kill;
mod memory;
mod retries;
mod server;
mod shapes;
mod stopping;
mod table;
mod time_limits;
mod verdict;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::exit;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;

use crate::table::Table;

/// Proves the claims of the README.
#[derive(Debug, Parser)]
#[command(name = "proof")]
struct Arguments {
    /// The binary of the example resume_batch [default: it is built]
    #[arg(long)]
    resume_batch: Option<PathBuf>,
}

/// One thread for all claims. The server has another one.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let code = match prove(Arguments::parse()).await {
        Ok(holds) => i32::from(!holds),
        Err(error) => {
            let _ = writeln!(io::stderr(), "proof: {error:#}");
            1
        }
    };
    // A return would wait for threads, and one of a claim that has failed may hang.
    exit(code)
}

async fn prove(arguments: Arguments) -> Result<bool> {
    let resume_batch = match arguments.resume_batch {
        Some(path) => path,
        None => {
            writeln!(io::stderr(), "proof: building the example resume_batch, which is done once")?;
            kill::build().await?
        }
    };
    let begun = Instant::now();
    let mut table = Table::begin()?;
    // First, because the other claims allocate memory, too.
    table.add("a slow reader fills no memory", memory::slow_reader()).await?;
    // In the background: it waits for leases most of the time.
    let killed = tokio::spawn(kill::killed(resume_batch));
    table.add("at most n at once, permits in use", bound::permits()).await?;
    table.add("one limit over many runs", bound::shared_limit()).await?;
    table.add("an item that waits holds no permit", retries::waiting_holds_no_permit()).await?;
    table.add("a 429 slows everybody", retries::refusal_slows_everybody()).await?;
    table.add("a rate", retries::rate()).await?;
    table.add("an exact account", retries::exact_account()).await?;
    table.add("a time limit per attempt", time_limits::attempt()).await?;
    table.add("a time limit per item", time_limits::item()).await?;
    table.add("a time limit for the whole run", time_limits::run()).await?;
    table.add("the first failure stops the run", verdict::first_failure()).await?;
    table.add("one failure too many stops the run", verdict::too_many_failures()).await?;
    table.add("enough successes end the run", verdict::enough_successes()).await?;
    table.add("a panic fails its item only", verdict::panics()).await?;
    table.add("a dropped run leaves nothing behind", stopping::dropped()).await?;
    table.add("a drained run ends what runs", stopping::drained()).await?;
    table.add("a second run does the rest", stopping::rest()).await?;
    table.add("one call for many items", shapes::batches()).await?;
    table.add("several cores", shapes::cores()).await?;
    table.add("a kill -9 loses nothing", async { killed.await? }).await?;
    let took = begun.elapsed().as_secs_f64();
    Ok(table.end(format_args!("{took:.1} s"))?)
}
