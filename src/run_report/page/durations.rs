//! The distribution of the durations of attempts.

use std::fmt::Write;

use maud::{Markup, PreEscaped, html};

use super::super::snapshot::{Bucket, Durations, Snapshot};
use super::chart::{Chart, HEIGHT, Tick, WIDTH};
use super::text::{compact, duration, number};

/// The number of bars.
const BARS: usize = 48;

/// The least factor from the left end of the axis to its right end.
const LEAST_FACTOR: f64 = 10.0;

/// A logarithmic axis of durations.
struct Axis {
    least: f64,
    /// The natural logarithm of the factor from the left end to the right end.
    length: f64,
}

impl Axis {
    fn new(buckets: &[Bucket]) -> Option<Self> {
        let least = buckets.first()?.from.max(1e-9);
        let most = buckets.last()?.to.max(least * 1.1);
        let missing = (LEAST_FACTOR / (most / least)).max(1.0).sqrt();
        Some(Self { least: least / missing, length: (most / least).ln() + 2.0 * missing.ln() })
    }

    /// Returns the place of a duration as a fraction of the axis.
    fn place(&self, duration: f64) -> f64 {
        ((duration.max(self.least) / self.least).ln() / self.length).min(1.0)
    }

    /// Returns marks at 1, 10, 100 and so on, and between them if there is room.
    fn ticks(&self) -> Vec<Tick> {
        let decades = self.length / 10_f64.ln();
        let steps: &[f64] = if decades < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let first = self.least.log10().floor() as i32;
        let every = (decades / 7.0).ceil() as usize;
        let powers = (first..first + decades.ceil() as i32 + 2).step_by(every.max(1));
        let values = powers.flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)));
        let tick = |value: f64| Tick { at: (value / self.least).ln() / self.length, text: duration(value) };
        values.map(tick).filter(|tick| (0.0..0.97).contains(&tick.at)).collect()
    }
}

pub(super) fn durations(run: &Snapshot) -> Markup {
    let Some(axis) = Axis::new(&run.duration_buckets) else {
        return html! { p.note { "No attempt has ended." } };
    };
    let bars = bars_of(&axis, &run.duration_buckets);
    let top = bars.iter().map(|(succeeded, failed)| succeeded + failed).max().unwrap_or(1);
    let durations = &run.attempt_durations;
    let marks = [("median", durations.p50), ("p90", durations.p90), ("p99", durations.p99)];
    let chart = Chart {
        description: "How long attempts took",
        height: 120.0,
        size: (WIDTH, HEIGHT),
        top: compact(top as f64),
        ticks: axis.ticks(),
    };
    let plot = html! {
        (draw(&bars, top))
        @for (name, value) in marks {
            @let x = format!("{:.2}", WIDTH * axis.place(value));
            line.mark x1=(x) x2=(x) y1="0" y2=(HEIGHT) { title { (name) " " (duration(value)) } }
        }
    };
    html! {
        (chart.render(&plot))
        @if run.attempts.failed > 0 {
            ul.legend { li { i.ok {} "attempts that succeeded" } li { i.ko {} "attempts that failed" } }
        }
        (table(run))
        p.note {
            "The axis is logarithmic. The lines are the median, the 90th and the 99th percentile of the attempts. The time of an \
             item includes its retries and the waits between them."
            @if run.permit_waits.max > 0.0 {
                " An attempt waits for permits (the column “waits”) while it is ready and cannot start: because of a limiter, a rate, a hold, its key, or, \
                 after a retry's delay, because all permits are in use."
            }
        }
    }
}

fn table(run: &Snapshot) -> Markup {
    let mut columns = vec![("attempts", &run.attempt_durations), ("items", &run.item_durations)];
    if run.permit_waits.max > 0.0 {
        columns.push(("waits", &run.permit_waits));
    }
    let rows: [(&str, fn(&Durations) -> f64); 6] = [
        ("mean", |of| of.mean),
        ("median", |of| of.p50),
        ("90th percentile", |of| of.p90),
        ("95th percentile", |of| of.p95),
        ("99th percentile", |of| of.p99),
        ("longest", |of| of.max),
    ];
    html! {
        table.durations {
            thead { tr { th {} @for (title, _) in &columns { th.n { (title) } } } }
            tbody {
                tr { td { "number" } @for (_, of) in &columns { td.n { (number(of.count)) } } }
                @for (name, value) in rows {
                    tr { td { (name) } @for (_, of) in &columns { td.n { (duration(value(of))) } } }
                }
            }
        }
    }
}

/// Returns the attempts of each bar that succeeded, and those that did not.
fn bars_of(axis: &Axis, buckets: &[Bucket]) -> Vec<(u64, u64)> {
    let mut bars = vec![(0, 0); BARS];
    for bucket in buckets {
        let middle = (bucket.from.max(axis.least) * bucket.to).sqrt();
        let at = (axis.place(middle) * BARS as f64) as usize;
        if let Some((succeeded, failed)) = bars.get_mut(at.min(BARS - 1)) {
            *succeeded += bucket.succeeded;
            *failed += bucket.failed;
        }
    }
    bars
}

fn draw(bars: &[(u64, u64)], top: u64) -> Markup {
    let width = WIDTH / BARS as f64;
    let (mut ok, mut ko) = (String::new(), String::new());
    for (n, (succeeded, failed)) in bars.iter().enumerate() {
        let x = n as f64 * width;
        let height = |count: u64| HEIGHT * count as f64 / top as f64;
        for (path, count, below) in [(&mut ok, *succeeded, 0), (&mut ko, *failed, *succeeded)] {
            if count > 0 {
                let (y, height) = (HEIGHT - height(below + count), height(count));
                // Writing to text cannot fail.
                let _ = write!(path, "M{x:.2} {y:.2}h{:.2}v{height:.2}H{x:.2}z", 0.9 * width);
            }
        }
    }
    PreEscaped(format!("<path class=\"ok\" d=\"{ok}\"/><path class=\"ko\" d=\"{ko}\"/>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attempt_is_in_a_bar() {
        let bucket = |from, to, succeeded, failed| Bucket { from, to, succeeded, failed };
        let tables = [
            vec![bucket(0.0, 1e-9, 3, 1)],
            vec![bucket(1.0, 1.01, 5, 0), bucket(1.01, 1.02, 1, 2)],
            vec![bucket(1e-6, 1.1e-6, 1, 0), bucket(1e-3, 1.1e-3, 70, 0), bucket(3_600.0, 3_660.0, 0, 9)],
        ];
        for buckets in tables {
            let axis = Axis::new(&buckets).unwrap();
            let bars = bars_of(&axis, &buckets);
            let sum = bars.iter().fold((0, 0), |sum, bar| (sum.0 + bar.0, sum.1 + bar.1));
            let all =
                buckets.iter().fold((0, 0), |sum, bucket| (sum.0 + bucket.succeeded, sum.1 + bucket.failed));
            assert_eq!(sum, all);
            assert!((2..=10).contains(&axis.ticks().len()), "{} marks for {buckets:?}", axis.ticks().len());
        }
        assert!(Axis::new(&[]).is_none());
    }
}
