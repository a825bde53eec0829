//! Additive increase, multiplicative decrease, as in Netflix concurrency-limits (`AIMDLimit`): every success adds 1 while at least
//! half of the limit is in use. A failure, or a duration above 5 s, takes a tenth.

use super::super::limits::{Ended, Limits};

pub(crate) struct Aimd {
    limit: usize,
    most: usize,
}

impl Aimd {
    pub(crate) fn new(start: usize, most: usize) -> Self {
        Self { limit: start, most }
    }
}

impl Limits for Aimd {
    fn limit(&self) -> usize {
        self.limit
    }

    fn ended(&mut self, attempt: &Ended) {
        if attempt.is_overload || attempt.duration() > 5.0 {
            self.limit = (self.limit - 1).min(self.limit * 9 / 10).max(1);
        } else if attempt.in_use_at_start * 2 >= self.limit {
            self.limit = (self.limit + 1).min(self.most);
        }
    }
}
