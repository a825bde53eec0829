//! Searches a grid of hyperparameters for the model that predicts best.
//!
//! ```text
//! cargo run --release --example hyperparameter_search
//! ```
//!
//! The model is k nearest neighbours: the temperature at a day and hour is the mean of the k nearest readings. An
//! hour counts as a number of days. It learns from three quarters of `examples/data/temperatures.csv`, and the last
//! quarter evaluates it.
//!
//! It shows CPU work: each candidate runs on a blocking thread, as many at once as there are cores. Candidates that
//! cannot be evaluated (more neighbours than readings) do not stop the search.

#![allow(clippy::print_stdout, reason = "an example shows what it does by printing it")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use async_map_task::AsyncMapTask;

#[derive(Debug, Clone, Copy)]
struct Candidate {
    neighbours: usize,
    days_per_hour: f64,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    day: f64,
    hour: f64,
    celsius: f64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let readings = Arc::new(read_csv()?);
    let grid: Vec<_> = [1, 2, 3, 5, 8, 13, 21, 34, 250]
        .into_iter()
        .flat_map(|neighbours| {
            [0.5, 1.0, 2.0, 4.0, 8.0, 16.0].map(|days_per_hour| Candidate { neighbours, days_per_hour })
        })
        .collect();

    let task = AsyncMapTask::builder()
        .name("hyperparameter_search")
        .concurrency(std::thread::available_parallelism().map_or(1, usize::from))
        .min_successes(1)
        .build()?;
    let result = task
        .run(grid.clone(), |candidate| {
            let readings = Arc::clone(&readings);
            async move { tokio::task::spawn_blocking(move || judge(candidate, &readings)).await? }
        })
        .await?;

    let judged =
        grid.iter().zip(&result.results).filter_map(|(candidate, error)| Some((candidate, (*error)?)));
    let (best, error) = judged.min_by(|a, b| a.1.total_cmp(&b.1)).context("no candidate was evaluated")?;
    println!("{} candidates, {} evaluated, {} not", result.total(), result.successes(), result.failures());
    println!("best: {} neighbours, {} days per hour", best.neighbours, best.days_per_hour);
    println!("its mean error: {error:.2} degrees");
    Ok(())
}

/// Returns the mean absolute error over every fourth reading, predicted from the others.
fn judge(candidate: Candidate, readings: &[Reading]) -> anyhow::Result<f64> {
    let (held_out, known): (Vec<_>, Vec<_>) = readings.iter().enumerate().partition(|(at, _)| at % 4 == 3);
    let Candidate { neighbours, days_per_hour } = candidate;
    ensure!(neighbours <= known.len(), "{neighbours} neighbours among {} readings", known.len());

    let errors = held_out.iter().map(|(_, target)| {
        let mut by_distance: Vec<_> = known
            .iter()
            .map(|(_, other)| {
                let days = on_circle(target.day - other.day, 365.0);
                let hours = on_circle(target.hour - other.hour, 24.0);
                (days.hypot(hours * days_per_hour), other.celsius)
            })
            .collect();
        by_distance.sort_by(|a, b| a.0.total_cmp(&b.0));
        let sum: f64 = by_distance.iter().take(neighbours).map(|(_, celsius)| celsius).sum();
        (sum / neighbours as f64 - target.celsius).abs()
    });
    Ok(errors.sum::<f64>() / held_out.len() as f64)
}

/// Returns the distance between two points of a year or a day, which are circular.
fn on_circle(difference: f64, circumference: f64) -> f64 {
    let difference = difference.abs();
    difference.min(circumference - difference)
}

fn read_csv() -> anyhow::Result<Vec<Reading>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/temperatures.csv");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let readings = text.lines().skip(1).map(|line| {
        let fields = line.split(',').map(str::parse).collect::<Result<Vec<f64>, _>>()?;
        let [day, hour, celsius] = fields[..] else { anyhow::bail!("a line has {} fields", fields.len()) };
        Ok(Reading { day, hour, celsius })
    });
    readings.collect()
}
