//! The averages and correlations that failsafe-go uses.

use std::collections::VecDeque;

/// An exponential average, which is the plain one for its first 10 values.
pub(crate) struct Average {
    value: f64,
    count: f64,
    factor: f64,
}

impl Average {
    pub(crate) fn new(age: f64) -> Self {
        Self { value: 0.0, count: 0.0, factor: 2.0 / (age + 1.0) }
    }

    pub(crate) fn add(&mut self, value: f64) -> f64 {
        self.count += 1.0;
        let factor = if self.count <= 10.0 { 1.0 / self.count } else { self.factor };
        self.value += (value - self.value) * factor;
        self.value
    }
}

/// The last pairs of values.
#[derive(Default)]
pub(crate) struct Pairs(VecDeque<(f64, f64)>);

impl Pairs {
    /// Adds a pair. Returns the correlation of the pairs, and the relative deviation of the second values. Before there are 10
    /// pairs, and if a value hardly changes, the correlation is 0.
    pub(crate) fn add(&mut self, x: f64, y: f64) -> (f64, f64) {
        if self.0.len() == 50 {
            self.0.pop_front();
        }
        self.0.push_back((x, y));
        let count = self.0.len() as f64;
        let mean_x = self.0.iter().map(|pair| pair.0).sum::<f64>() / count;
        let mean_y = self.0.iter().map(|pair| pair.1).sum::<f64>() / count;
        let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
        for (x, y) in &self.0 {
            xx += (x - mean_x).powi(2) / count;
            yy += (y - mean_y).powi(2) / count;
            xy += (x - mean_x) * (y - mean_y) / count;
        }
        let (spread_x, spread_y) = (xx.sqrt() / mean_x, yy.sqrt() / mean_y);
        if count < 10.0 {
            return (0.0, 1.0);
        }
        let correlation = if spread_x < 0.01 || spread_y < 0.01 { 0.0 } else { xy / (xx * yy).sqrt() };
        (correlation, spread_y)
    }
}
