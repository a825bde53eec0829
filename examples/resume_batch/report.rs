//! The output: the outcome of each file on stdout, the progress of the run on stderr.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use async_map_task::store::{RunInfo, RunStatus};
use async_map_task::{ItemError, ItemOutcome, Origin};
use tokio::io::AsyncWriteExt;

use crate::file::VerifyError;
use crate::manifest::Row;

#[derive(Debug, Default)]
pub(crate) struct Counts {
    printed: AtomicUsize,
    recovered: AtomicUsize,
    /// The bytes of running files that need not be read again.
    pub(crate) read: AtomicU64,
}

/// Describes the stored state of the run before it continues.
pub(crate) fn describe(run_id: &str, info: Option<&RunInfo>) -> String {
    let Some(info) = info else { return format!("run {run_id}: new") };
    let is_held = info.lease.as_ref().is_some_and(|lease| lease.expires > SystemTime::now());
    let status = match &info.status {
        RunStatus::Running if is_held => "running, or killed recently".to_owned(),
        RunStatus::Running => "interrupted".to_owned(),
        RunStatus::Succeeded => "completed".to_owned(),
        RunStatus::Failed { reason } => format!("stopped: {reason}"),
        other => format!("{other:?}"),
    };
    let age = info.updated.elapsed().unwrap_or_default().as_secs();
    let mut text = format!(
        "run {run_id}: {status}; {} files verified, {} failed, last update {age} s ago",
        info.succeeded, info.failed
    );
    for (index, message) in &info.failures {
        text += &format!("\n  line {}: {message}", index + 1);
    }
    text
}

/// Prints a line in the format of `sha256sum -c`, and the error of a file that failed.
pub(crate) async fn print(
    rows: &[Row],
    ItemOutcome { index, origin, result, .. }: ItemOutcome<u64, VerifyError>,
    counts: &Counts,
) -> io::Result<()> {
    let Some(Row { path, .. }) = rows.get(index) else { return Ok(()) };
    let line = match &result {
        Ok(_) => format!("{path}: OK\n"),
        Err(ItemError::Failed { error: VerifyError::Differs { .. }, .. }) => format!("{path}: FAILED\n"),
        Err(_) => format!("{path}: FAILED open or read\n"),
    };
    if let Err(error) = result {
        tell(&format!("{path}: {error}"));
    }
    let mut out = tokio::io::stdout();
    out.write_all(line.as_bytes()).await?;
    out.flush().await?;
    counts.printed.fetch_add(1, Relaxed);
    counts.recovered.fetch_add(usize::from(origin == Origin::Recovered), Relaxed);
    Ok(())
}

pub(crate) async fn show_progress(counts: Arc<Counts>, total: usize) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        tell(&format!(
            "{} of {total} files, {} of them from earlier runs, {} MiB of large files",
            counts.printed.load(Relaxed),
            counts.recovered.load(Relaxed),
            counts.read.load(Relaxed) / (1024 * 1024)
        ));
    }
}

/// Prints one line on stderr. An error is ignored: stderr may be closed.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
