//! The timeline: which permits were in use, and for what.

use std::collections::HashMap;
use std::fmt::Write;

use maud::{Markup, PreEscaped, html};

use super::super::grid::Cell;
use super::super::snapshot::{Attempt, Snapshot};
use super::chart::{Chart, WIDTH, time_ticks};
use super::text::duration;

/// A timeline with more attempts than this shows how busy the permits are instead of single attempts.
const SINGLE_ATTEMPTS: usize = 2_000;

/// The height of a timeline in pixels, if its rows are not too high or too low for that.
const HEIGHT: f64 = 340.0;

/// The part of its row that an attempt fills.
const FILLED: f64 = 0.84;

/// The least width of an attempt, in the units of the plot, so that it can be seen.
const LEAST_WIDTH: f64 = 0.8;

pub(super) fn timeline(run: &Snapshot) -> Markup {
    let calls = run.timeline.iter().filter(|attempt| !attempt.shares_call).count();
    let is_sample = run.timeline_has_one_item_in > 1 || calls > SINGLE_ATTEMPTS;
    let (rows, width, plot) = if is_sample { busy_cells(run) } else { single_attempts(run) };
    let height = (HEIGHT / rows as f64).clamp(5.0, 18.0) * rows as f64;
    let chart = Chart {
        description: "Which permits were in use over time",
        height,
        size: (width, rows as f64),
        top: rows_label(run, rows, is_sample),
        ticks: time_ticks(run.elapsed),
    };
    html! {
        (chart.render(&plot))
        ul.legend {
            @for (class, text) in legend(run, is_sample) {
                li { i class=(class) {} (text) }
            }
        }
        p.note {
            @if is_sample {
                "Each row is " (permits_of_a_row(run)) ". The stronger its colour, the more of the time it was in use. The red \
                 part of its height is the part of its attempts that failed."
            } @else {
                "Each row is a permit, each bar an attempt. Hold the pointer over a bar for its item."
            }
        }
    }
}

/// Returns the classes of the shapes that the timeline has, and their meaning.
fn legend(run: &Snapshot, is_sample: bool) -> impl Iterator<Item = (&'static str, &'static str)> {
    let has = |outcome| !is_sample && run.timeline.iter().any(|attempt| attempt.outcome == outcome);
    let entries = [
        ("ok", "succeeded", true),
        ("l2", "in use for a part of the time", is_sample),
        ("re", "failed, then retried", has("retried")),
        ("ko", "failed", has("failed") || is_sample && run.attempts.failed > 0),
        ("cut", "cut off", has("cut_off")),
        ("run", "running", has("running")),
        ("wait", "waits for its retry", has("retried")),
    ];
    entries.into_iter().filter_map(|(class, text, is_shown)| is_shown.then_some((class, text)))
}

fn permits_of_a_row(run: &Snapshot) -> String {
    match run.grid.rows_in_one() {
        1 => "a permit".to_owned(),
        several => format!("{several} permits"),
    }
}

fn rows_label(run: &Snapshot, rows: usize, is_sample: bool) -> String {
    let in_one = if is_sample { run.grid.rows_in_one() as usize } else { 1 };
    (rows * in_one).min(run.attempts.most_in_flight.max(1)).to_string()
}

/// Draws each attempt, the first permit at the bottom. Returns the number of rows and the width in units, too.
fn single_attempts(run: &Snapshot) -> (usize, f64, Markup) {
    let rows = run.timeline.iter().map(|attempt| attempt.permit as usize + 1).max().unwrap_or(1);
    let scale = if run.elapsed > 0.0 { WIDTH / run.elapsed } else { 0.0 };
    // The attempts of an item follow each other.
    let mut before: HashMap<usize, &Attempt> = HashMap::new();
    let mut waits = String::new();
    // The first item of a call stands for the others.
    let attempts = || run.timeline.iter().filter(|attempt| !attempt.shares_call);
    for attempt in attempts() {
        let middle = |attempt: &Attempt| rows as f64 - f64::from(attempt.permit) - 0.5;
        if let Some(failed) =
            before.insert(attempt.item, attempt).filter(|before| before.outcome == "retried")
        {
            let (from, to) = (failed.end * scale, attempt.start * scale);
            // Writing to text cannot fail.
            let _ = write!(waits, "M{from:.2} {}L{to:.2} {}", middle(failed), middle(attempt));
        }
    }
    let plot = html! {
        path.wait d=(waits) {}
        @for attempt in attempts() {
            @let x = attempt.start * scale;
            @let width = ((attempt.end - attempt.start) * scale).max(LEAST_WIDTH);
            @let y = rows as f64 - f64::from(attempt.permit) - (1.0 + FILLED) / 2.0;
            rect class=(class(attempt.outcome)) x=(format!("{x:.2}")) width=(format!("{width:.2}"))
                y=(format!("{y:.2}")) height=(FILLED) { title { (describe(run, attempt)) } }
        }
    };
    (rows, WIDTH, plot)
}

fn class(outcome: &str) -> &'static str {
    match outcome {
        "succeeded" => "ok",
        "retried" => "re",
        "failed" => "ko",
        "running" => "run",
        _ => "cut",
    }
}

fn describe(run: &Snapshot, attempt: &Attempt) -> String {
    let item = match run.labels.get(&attempt.item) {
        Some(label) => format!("{label} (item {})", attempt.item),
        None => format!("item {}", attempt.item),
    };
    let outcome = match attempt.outcome {
        "retried" => "failed, then retried",
        "cut_off" => "cut off",
        other => other,
    };
    let (took, at) = (duration(attempt.end - attempt.start), duration(attempt.start));
    format!("{item}, attempt {}: {outcome} after {took}, started at {at}", attempt.attempt)
}

/// Draws how busy the permits were, the first ones at the bottom. Returns the number of rows and the width in units, too.
fn busy_cells(run: &Snapshot) -> (usize, f64, Markup) {
    let grid = &run.grid;
    let full = grid.width() * u64::from(grid.rows_in_one());
    let mut svg = String::new();
    for level in 1..=4 {
        let path = runs_of_cells(grid.rows(), FILLED, |cell| busy_level(cell, full) == level);
        let _ = write!(svg, "<path class=\"l{level}\" d=\"{path}\"/>");
    }
    // The part of the cell that is red is the part of the attempts that failed, in thirds.
    for part in 1..=3 {
        let path =
            runs_of_cells(grid.rows(), FILLED * f64::from(part) / 3.0, |cell| failed_part(cell) == part);
        let _ = write!(svg, "<path class=\"ko\" d=\"{path}\"/>");
    }
    let width = (run.elapsed * 1e9 / grid.width() as f64).max(1.0);
    (grid.rows().len().max(1), width, PreEscaped(svg))
}

/// Returns how busy a cell is, from 0 to 4.
fn busy_level(cell: &Cell, full: u64) -> u64 {
    (4 * cell.busy).div_ceil(full).min(4)
}

/// Returns the part of the attempts that failed, from 0 to 3.
fn failed_part(cell: &Cell) -> u32 {
    (3 * u64::from(cell.failed)).div_ceil(u64::from(cell.ended.max(1))) as u32
}

/// Returns a path with a rectangle for each run of neighbouring cells of a row.
fn runs_of_cells(rows: &[Vec<Cell>], height: f64, is_in: impl Fn(&Cell) -> bool) -> String {
    let mut path = String::new();
    for (row, cells) in rows.iter().rev().enumerate() {
        let bottom = row as f64 + (1.0 + FILLED) / 2.0;
        let mut start = 0;
        for part in cells.chunk_by(|one, other| is_in(one) == is_in(other)) {
            if part.first().is_some_and(&is_in) {
                let width = part.len();
                let _ = write!(path, "M{start} {bottom:.2}v-{height:.2}h{width}v{height:.2}z");
            }
            start += part.len();
        }
    }
    path
}
