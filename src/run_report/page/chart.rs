//! Charts over time, and their axes.
//!
//! The shapes are SVG that is stretched to the width of the page. The texts are HTML beside it, so that they are never
//! stretched.

use std::fmt::Write;

use maud::{Markup, PreEscaped, html};

use super::text::{duration, step};

/// The width and the height of a plot in its own units.
pub(super) const WIDTH: f64 = 1_000.0;
pub(super) const HEIGHT: f64 = 100.0;

/// A mark of an axis: its place as a fraction of the axis, and its text.
pub(super) struct Tick {
    pub(super) at: f64,
    pub(super) text: String,
}

/// A frame around a plot.
pub(super) struct Chart<'a> {
    /// What the plot shows, for readers that cannot see it.
    pub(super) description: &'a str,
    /// In pixels.
    pub(super) height: f64,
    /// The width and the height of the plot in its own units.
    pub(super) size: (f64, f64),
    /// The value at the top, as text.
    pub(super) top: String,
    pub(super) ticks: Vec<Tick>,
}

impl Chart<'_> {
    pub(super) fn render(&self, plot: &Markup) -> Markup {
        let Self { description, height, size: (width, units), top, ticks } = self;
        html! {
            figure.chart role="img" aria-label=(description) {
                div.y { span { (top) } span { "0" } }
                div.plot style=(format!("height:{height:.0}px")) {
                    @for tick in ticks {
                        i.grid style=(place(tick.at)) {}
                    }
                    svg viewBox=(format!("0 0 {width} {units}")) preserveAspectRatio="none" { (plot) }
                }
                div.x {
                    @for (n, tick) in ticks.iter().enumerate() {
                        span.odd[n % 2 == 1] style=(place(tick.at)) { (tick.text) }
                    }
                }
            }
        }
    }
}

fn place(at: f64) -> String {
    format!("left:{:.2}%", 100.0 * at)
}

/// Returns the marks of an axis of time.
pub(super) fn time_ticks(elapsed: f64) -> Vec<Tick> {
    if elapsed <= 0.0 {
        return Vec::new();
    }
    let step = match elapsed / 6.0 {
        least if least <= 20.0 => step(least),
        // Minutes and hours are not decimal.
        least => {
            let steps =
                [30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0, 28_800.0];
            steps
                .into_iter()
                .find(|known| *known >= least)
                .unwrap_or_else(|| step(least / 86_400.0) * 86_400.0)
        }
    };
    // A mark at the very end would be cut off.
    let count = (0.97 * elapsed / step) as usize;
    let tick = |n| {
        let time = n as f64 * step;
        Tick { at: time / elapsed, text: duration(time) }
    };
    (0..=count).map(tick).collect()
}

/// Draws stacked bars, one for each period. Each layer has a class and a value for each period.
pub(super) fn bars(period: f64, elapsed: f64, top: f64, layers: &[(&str, &[u64])]) -> Markup {
    let width = WIDTH * period / elapsed;
    let mut below: Vec<u64> = Vec::new();
    let mut svg = String::new();
    for (class, values) in layers {
        let mut path = String::new();
        for (n, value) in values.iter().enumerate() {
            let from = below.get(n).copied().unwrap_or(0);
            if *value > 0 {
                let x = n as f64 * width;
                let bar = (0.9 * width).min(WIDTH - x).max(0.0);
                let (y, height) =
                    (HEIGHT * (1.0 - (from + value) as f64 / top), HEIGHT * *value as f64 / top);
                // Writing to text cannot fail.
                let _ = write!(path, "M{x:.2} {y:.2}h{bar:.2}v{height:.2}h-{bar:.2}z");
            }
            match below.get_mut(n) {
                Some(sum) => *sum += value,
                None => below.push(*value),
            }
        }
        let _ = write!(svg, "<path class=\"{class}\" d=\"{path}\"/>");
    }
    PreEscaped(svg)
}

/// Draws the averages of periods as an area with steps.
pub(super) fn area(class: &str, period: f64, elapsed: f64, top: f64, values: &[f64]) -> Markup {
    let mut path = format!("M0 {HEIGHT}");
    for (n, value) in values.iter().enumerate() {
        let end = (WIDTH * (n + 1) as f64 * period / elapsed).min(WIDTH);
        let _ = write!(path, "V{:.2}H{end:.2}", HEIGHT * (1.0 - (value / top).min(1.0)));
    }
    html! { path class=(class) d=(format!("{path}V{HEIGHT}z")) {} }
}

/// Draws a line from the left to the right.
pub(super) fn line(class: &str, value: f64, top: f64, title: &str) -> Markup {
    let y = format!("{:.2}", HEIGHT * (1.0 - value / top));
    html! {
        line class=(class) x1="0" x2=(WIDTH) y1=(y) y2=(y) { title { (title) } }
    }
}

/// Draws a value that changes at some times.
pub(super) fn staircase(class: &str, elapsed: f64, top: f64, steps: &[(f64, f64)]) -> Markup {
    let mut path = String::new();
    for (at, value) in steps {
        let (x, y) = (WIDTH * at / elapsed, HEIGHT * (1.0 - value / top));
        let start = if path.is_empty() { "M0 " } else { "V" };
        // The value before holds up to here.
        let before = if path.is_empty() { String::new() } else { format!("H{x:.2}") };
        let _ = write!(path, "{before}{start}{y:.2}");
    }
    html! { path class=(class) d=(format!("{path}H{WIDTH}")) {} }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_some_marks_at_round_times() {
        for elapsed in [1e-7, 0.003, 0.9, 1.0, 42.0, 100.0, 3_700.0, 1e5, 1e7] {
            let ticks = time_ticks(elapsed);
            assert!((3..=9).contains(&ticks.len()), "{} marks for {elapsed} s", ticks.len());
            assert!(ticks.iter().all(|tick| (0.0..0.98).contains(&tick.at)));
        }
        let texts: Vec<_> = time_ticks(42.0).into_iter().map(|tick| tick.text).collect();
        assert_eq!(texts, ["0 s", "10 s", "20 s", "30 s", "40 s"]);
        assert!(time_ticks(0.0).is_empty());
    }
}
