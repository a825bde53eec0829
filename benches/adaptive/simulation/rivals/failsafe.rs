//! The adaptive limiter of failsafe-go: once a second, and after at least 50 samples, the 0.9 quantile of the durations, as the
//! smoothed median of 5 such windows, is compared with its own average over about 10 windows. The queue that follows from it is
//! kept between 3 and 6 times the logarithm of the limit. While the limiter is full, the limit also falls if throughput falls
//! or durations rise with the permits in use, over 50 windows.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::limits::{Ended, Limits};
use super::correlation::{Average, Pairs};

pub(crate) struct Failsafe {
    limit: f64,
    most: f64,
    durations: Vec<f64>,
    in_use: usize,
    next: Duration,
    last: VecDeque<f64>,
    smoothed: Average,
    baseline: Average,
    throughputs: Pairs,
    delays: Pairs,
}

impl Failsafe {
    pub(crate) fn new(start: usize, most: usize) -> Self {
        Self {
            limit: start as f64,
            most: most as f64,
            durations: Vec::new(),
            in_use: 0,
            next: Duration::ZERO,
            last: VecDeque::new(),
            smoothed: Average::new(5.0),
            baseline: Average::new(10.0),
            throughputs: Pairs::default(),
            delays: Pairs::default(),
        }
    }

    fn change(&mut self, recent: f64, is_full: bool) {
        let in_use = self.in_use as f64;
        let step = self.limit.trunc().log10().trunc().max(1.0);
        let queue = (self.limit * (1.0 - self.baseline.add(recent) / recent)).ceil();
        let (throughput, spread) = self.throughputs.add(in_use, in_use / recent);
        let (delay, _) = self.delays.add(in_use, recent);
        let falls = throughput < 0.0 || (throughput < 0.3 && delay > 0.5) || (spread < 0.2 && delay > 0.5);
        let wanted = if queue > 6.0 * step || (is_full && falls) {
            self.limit - step
        } else if queue < 3.0 * step {
            self.limit + step
        } else {
            self.limit
        };
        let wanted = if wanted > 5.0 * in_use { self.limit - step } else { wanted };
        self.limit = wanted.clamp(1.0, self.most);
    }
}

impl Limits for Failsafe {
    fn limit(&self) -> usize {
        self.limit as usize
    }

    fn ended(&mut self, attempt: &Ended) {
        if !attempt.is_overload {
            self.durations.push(attempt.duration());
            self.in_use = self.in_use.max(attempt.in_use_at_start);
        }
        if attempt.now <= self.next || self.durations.len() < 50 {
            return;
        }
        self.durations.sort_by(f64::total_cmp);
        let shortest = self.durations[0];
        let quantile = self.durations[self.durations.len() * 9 / 10];
        if self.last.len() == 5 {
            self.last.pop_front();
        }
        self.last.push_back(quantile);
        let mut last: Vec<f64> = self.last.iter().copied().collect();
        last.sort_by(f64::total_cmp);
        let recent = self.smoothed.add(last[last.len() / 2]);
        self.change(recent, attempt.is_full);
        self.durations.clear();
        self.in_use = 0;
        self.next = attempt.now + Duration::from_secs_f64((2.0 * shortest).clamp(1.0, 30.0));
    }
}
