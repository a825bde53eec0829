//! The cost of some work, on two clocks.

use std::ops::Div;
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

use super::median;

/// Nanoseconds of wall clock and of CPU time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
}

impl Cost {
    /// The median on each clock.
    pub(crate) fn median(costs: &[Self]) -> Self {
        Self {
            wall: median(costs.iter().map(|cost| cost.wall)),
            cpu: median(costs.iter().map(|cost| cost.cpu)),
        }
    }
}

/// Returns the cost of one of these items.
impl Div<u64> for Cost {
    type Output = Self;

    fn div(self, items: u64) -> Self {
        Self { wall: self.wall / items as f64, cpu: self.cpu / items as f64 }
    }
}

/// Both clocks, from the same moment on.
pub(crate) struct Stopwatch {
    id: ClockId,
    wall: Instant,
    cpu: f64,
}

impl Stopwatch {
    /// Counts only the CPU time of this thread, and so not that of a server in this process.
    pub(crate) fn of_thread() -> Self {
        Self::of(ClockId::ThreadCPUTime)
    }

    /// Counts the CPU time of all threads.
    pub(crate) fn of_process() -> Self {
        Self::of(ClockId::ProcessCPUTime)
    }

    fn of(id: ClockId) -> Self {
        Self { id, cpu: cpu_time(id), wall: Instant::now() }
    }

    pub(crate) fn stop(self) -> Cost {
        Cost { wall: self.wall.elapsed().as_nanos() as f64, cpu: cpu_time(self.id) - self.cpu }
    }
}

fn cpu_time(id: ClockId) -> f64 {
    let time = clock_gettime(id);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}
