//! A pipeline of two tasks: the outcomes of the first are the source of the second. One parses the CSV files of a
//! folder. The other computes the statistics of each file and writes them as JSON.
//!
//! ```text
//! cargo run --example pipeline -- <input> <output> --parsers 4 --writers 2
//! ```
//!
//! It shows:
//!
//! - Back-pressure through both. While the reports are slow, no more files are read. The program prints every second
//!   how many files the first task is ahead of the second. This number stays below a limit.
//! - One account at the end, with the outcome of each file in the folder.
//! - If one task ends, the other ends too, and nothing is lost. If the parsing ends too early, because too many files
//!   are broken or because of Ctrl-C, all parsed files are still reported.
//!
//! Exit codes: 0 if both tasks succeeded, 1 if not, 2 for invalid arguments.

mod account;
mod arguments;
mod readings;

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use futures::{StreamExt, TryStreamExt, future};
use tokio_util::sync::CancellationToken;

use crate::account::{Account, Ahead};
use crate::arguments::Arguments;
use crate::readings::{parse, report};

#[tokio::main]
async fn main() {
    let job = Arguments::parse().job();
    let stop = CancellationToken::new();
    tokio::spawn(cancel_on_ctrl_c(stop.clone()));
    let ahead = Arc::new(Ahead::default());
    tokio::spawn(show_progress(Arc::clone(&ahead), job.ahead_limit));
    let account = RefCell::new(Account::new(&ahead));

    let mut parsed = job
        .parse
        .over(job.files.clone())
        .map_blocking(|file| parse(&file))
        .observe(Arc::clone(&ahead))
        .cancellation_token(stop.clone())
        .stream();
    // The failures of the first task end here. The error of its run is passed on, and ends the run of the second
    // task.
    let readings = (&mut parsed).try_filter_map(|outcome| future::ok(account.borrow_mut().parsed(outcome)));
    let output = job.output;
    let run = job
        .report
        .over_try_stream(readings)
        .map_blocking(move |readings| report(&readings, &output))
        .for_each(|outcome| {
            account.borrow_mut().reported(outcome);
            future::ready(())
        })
        .await;
    // If the second task ended first, the first is stopped, and returns its finished files.
    stop.cancel();
    while let Some(outcome) = parsed.next().await {
        if let Ok(outcome) = outcome {
            account.borrow_mut().parsed(outcome);
        }
    }

    let mut complaints = Vec::new();
    let reported = run.unwrap_or_else(|error| {
        let summary = error.summary().clone();
        // The alternate form includes the causes, such as the error of the first run.
        complaints.push(format!("{:#}", anyhow::Error::new(error)));
        summary
    });
    if let Err(error) = account.borrow().print(&job.files) {
        complaints.push(format!("cannot print the report: {error}"));
    }
    let all_well = complaints.is_empty();
    let mut lines = complaints;
    lines.extend(parsed.summary().map(|summary| format!("parse: {summary}")));
    lines.push(format!("report: {reported}"));
    lines.push(format!("maximum of files ahead: {} of at most {}", ahead.most(), job.ahead_limit));
    // An error is ignored: stderr may be closed.
    let _ = writeln!(io::stderr(), "{}", lines.join("\n"));
    // A return would wait for all blocking threads, and one of them may hang in a read.
    std::process::exit(i32::from(!all_well))
}

/// The first Ctrl-C stops the parsing. A second one ends the program.
async fn cancel_on_ctrl_c(stop: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_ok() {
        stop.cancel();
    }
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(130);
    }
}

async fn show_progress(ahead: Arc<Ahead>, limit: usize) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let _ = writeln!(io::stderr(), "files ahead: {} of at most {limit}", ahead.now());
    }
}
