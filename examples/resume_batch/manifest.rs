//! The list of files to verify. It does not depend on tasks and runs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

/// One line of the list. The run identifies it by its index and by both fields.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// The expected SHA-256.
    pub(crate) sum: String,
    pub(crate) path: String,
}

pub(crate) fn read_manifest(manifest: &Path) -> Result<Vec<Row>> {
    let text = fs::read_to_string(manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
    let rows = text.lines().zip(1..).map(|(line, number)| {
        row(line).with_context(|| format!("line {number} of {}: {line:?}", manifest.display()))
    });
    rows.collect()
}

/// Parses a line: a checksum, a space, a space or a star, a path. A line that begins with a backslash has an escaped
/// path, and is not supported.
fn row(line: &str) -> Result<Row> {
    let parts = line.split_once("  ").or_else(|| line.split_once(" *"));
    let (sum, path) = parts.context("a checksum and a path in the format of sha256sum are required")?;
    let is_sum = sum.len() == 64 && sum.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    ensure!(is_sum, "the checksum must have 64 hexadecimal digits");
    Ok(Row { sum: sum.to_owned(), path: path.to_owned() })
}
