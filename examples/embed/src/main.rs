//! Embeds texts with an API that takes up to 96 texts and 8,000 tokens in one request, refuses some requests, and fails
//! sometimes.
//!
//! ```text
//! cargo run --release -p embed
//! cargo run --release -p embed -- --texts lines.txt --out embeddings.jsonl
//! ```
//!
//! It shows `map_batches` with `batch_weight`, one rate for all requests, requests that wait when the server asks for it
//! (`429 Too Many Requests`), and retries of transient errors only. A text that is too long makes the server refuse a whole
//! request. The library then searches for that text with smaller requests, and all others are embedded. `job.rs` is all
//! that a program needs for that; the server is part of the example. The server records if its client keeps to the rules.
//!
//! Exit codes: 0 if every text is embedded, 1 if not, 2 for invalid arguments, 130 after Ctrl-C.

mod job;
mod server;
mod texts;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use async_map_task::MapTaskResult;
use clap::Parser;

use crate::job::{ApiError, embed_all};
use crate::server::Server;
use crate::texts::{least_requests, read_texts, sample_texts};

/// The number of failed texts that are shown.
const SHOWN: usize = 10;

/// Embeds texts with a server of its own.
#[derive(Debug, Parser)]
#[command(name = "embed")]
struct Arguments {
    /// A file with one text in each line [default: 4,000 texts, of which 4 are too long]
    #[arg(long, value_name = "PATH")]
    texts: Option<PathBuf>,
    /// Writes the embeddings to this file, as lines of JSON
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let texts = match &arguments.texts {
        Some(path) => read_texts(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => sample_texts(),
    };
    let server = Server::start().await.context("cannot start the server of the example")?;

    let mut failure = None;
    let result = embed_all(server.url(), &texts).await?.unwrap_or_else(|error| {
        failure = Some((error.to_string(), error.is_cancelled()));
        error.into_partial()
    });
    if let Some(out) = &arguments.out {
        write_embeddings(out, &result).with_context(|| format!("cannot write {}", out.display()))?;
    }
    print(&result, &texts, &server).context("cannot print the report")?;
    if let Some((failure, is_cancelled)) = &failure {
        // An error is ignored: stderr may be closed.
        let _ = writeln!(io::stderr(), "{failure}");
        return Ok(ExitCode::from(if *is_cancelled { 130 } else { 1 }));
    }
    Ok(ExitCode::from(u8::from(result.failures() > 0)))
}

fn write_embeddings(path: &Path, result: &MapTaskResult<Vec<f32>, ApiError>) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    for (index, embedding) in result.results.iter().enumerate() {
        if let Some(embedding) = embedding {
            writeln!(out, "{}", serde_json::json!({ "index": index, "embedding": embedding }))?;
        }
    }
    out.flush()
}

fn print(result: &MapTaskResult<Vec<f32>, ApiError>, texts: &[String], server: &Server) -> io::Result<()> {
    let summary = &result.summary;
    let mut out = io::stdout().lock();
    writeln!(out, "{summary}")?;
    writeln!(out, "{server}")?;
    writeln!(
        out,
        "without a refusal, a failure or a text that is too long: {} requests",
        least_requests(texts)
    )?;
    for (index, error) in result.errors.iter().take(SHOWN) {
        let start: String = texts.get(*index).map(|text| text.chars().take(30).collect()).unwrap_or_default();
        writeln!(out, "text {index}, {start:?}..: {error}")?;
    }
    if result.errors.len() > SHOWN {
        writeln!(out, "and {} more", result.errors.len() - SHOWN)?;
    }
    out.flush()
}
