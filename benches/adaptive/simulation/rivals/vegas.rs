//! TCP Vegas for requests, as in Netflix concurrency-limits (`VegasLimit`): the queue is estimated for each sample as
//! `limit x (1 - shortest / duration)`. It is kept between 3 and 6 times the logarithm of the limit. After 15 to 30 times the
//! limit of samples, the next one becomes the shortest.

use super::super::limits::{Ended, Limits};
use super::super::random::Random;

pub(crate) struct Vegas {
    limit: f64,
    most: f64,
    shortest: Option<f64>,
    samples: f64,
    jitter: f64,
    random: Random,
}

impl Vegas {
    pub(crate) fn new(start: usize, most: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let jitter = 0.5 + random.unit() / 2.0;
        Self { limit: start as f64, most: most as f64, shortest: None, samples: 0.0, jitter, random }
    }

    fn changed(&self, attempt: &Ended, shortest: f64) -> f64 {
        let limit = self.limit;
        let step = limit.trunc().log10().trunc().max(1.0);
        let queue = (limit * (1.0 - shortest / attempt.duration())).ceil();
        if attempt.is_overload {
            limit - step
        } else if (attempt.in_use_at_start as f64) * 2.0 < limit {
            limit
        } else if queue <= step {
            limit + 6.0 * step
        } else if queue < 3.0 * step {
            limit + step
        } else if queue > 6.0 * step {
            limit - step
        } else {
            limit
        }
    }
}

impl Limits for Vegas {
    fn limit(&self) -> usize {
        self.limit as usize
    }

    fn ended(&mut self, attempt: &Ended) {
        let duration = attempt.duration();
        self.samples += 1.0;
        if self.jitter * 30.0 * self.limit <= self.samples {
            self.jitter = 0.5 + self.random.unit() / 2.0;
            self.samples = 0.0;
            self.shortest = Some(duration);
            return;
        }
        match self.shortest {
            Some(shortest) if duration >= shortest => {
                self.limit = self.changed(attempt, shortest).clamp(1.0, self.most);
            }
            _ => self.shortest = Some(duration),
        }
    }
}
