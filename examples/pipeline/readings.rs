//! The work on one file. It does not depend on tasks and runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::Serialize;

const HEADER: &str = "sensor,value";

/// The readings of one file, by sensor.
#[derive(Debug, Clone)]
pub(crate) struct Readings {
    file: PathBuf,
    by_sensor: BTreeMap<String, Vec<f64>>,
}

/// The report of one sensor.
#[derive(Debug, Serialize)]
struct Figures {
    readings: usize,
    min: f64,
    mean: f64,
    max: f64,
}

/// The first stage: reads a file and parses it.
pub(crate) fn parse(file: &Path) -> anyhow::Result<Readings> {
    let text = fs::read_to_string(file)?;
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    ensure!(header == HEADER, "the header must be {HEADER:?}, got {header:?}");
    let mut by_sensor = BTreeMap::<_, Vec<_>>::new();
    for (number, line) in (2..).zip(lines) {
        let (sensor, value) =
            line.split_once(',').with_context(|| format!("line {number} has no value: {line:?}"))?;
        let number: f64 = value.parse().with_context(|| format!("line {number} has the value {value:?}"))?;
        by_sensor.entry(sensor.to_owned()).or_default().push(number);
    }
    Ok(Readings { file: file.to_owned(), by_sensor })
}

/// The second stage: computes the statistics of every sensor and writes them as JSON, in a file of the same name.
/// Returns the number of readings.
pub(crate) fn report(readings: &Readings, folder: &Path) -> anyhow::Result<usize> {
    let Readings { file, by_sensor } = readings;
    ensure!(!by_sensor.is_empty(), "there are no readings");
    let figures: BTreeMap<_, _> =
        by_sensor.iter().map(|(sensor, values)| (sensor, figures(values))).collect();
    let name = file.with_extension("json");
    let path = folder.join(name.file_name().unwrap_or_default());
    let json = serde_json::to_vec_pretty(&figures)?;
    fs::write(&path, json).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(by_sensor.values().map(Vec::len).sum())
}

fn figures(values: &[f64]) -> Figures {
    Figures {
        readings: values.len(),
        min: values.iter().copied().fold(f64::INFINITY, f64::min),
        mean: values.iter().sum::<f64>() / values.len() as f64,
        max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    }
}

/// Returns the CSV files of a folder, sorted.
pub(crate) fn files_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut files = entries.collect::<std::io::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "csv"));
    files.sort();
    Ok(files)
}
