//! `Gradient2Limit` of Netflix concurrency-limits: each sample moves the limit a fifth of the way to
//! `limit x gradient + 4`. The gradient is 1.5 times the average of about 600 samples over the present duration, from 0.5 to 1.

use super::super::limits::{Ended, Limits};

pub(crate) struct Gradient2 {
    limit: f64,
    most: f64,
    long: f64,
    samples: f64,
}

impl Gradient2 {
    pub(crate) fn new(start: usize, most: usize) -> Self {
        Self { limit: start as f64, most: most as f64, long: 0.0, samples: 0.0 }
    }
}

impl Limits for Gradient2 {
    fn limit(&self) -> usize {
        self.limit as usize
    }

    fn ended(&mut self, attempt: &Ended) {
        let short = attempt.duration();
        self.samples += 1.0;
        if self.samples <= 10.0 {
            self.long += (short - self.long) / self.samples;
        } else {
            self.long += (short - self.long) * 2.0 / 601.0;
        }
        if self.long / short > 2.0 {
            self.long *= 0.95;
        }
        if (attempt.in_use_at_start as f64) < self.limit / 2.0 {
            return;
        }
        let gradient = (1.5 * self.long / short).clamp(0.5, 1.0);
        let wanted = self.limit * gradient + 4.0;
        self.limit = (self.limit * 0.8 + wanted * 0.2).clamp(1.0, self.most);
    }
}
