//! The rule of this crate.

use super::limits::{Ended, Limits};
use super::rule::{End, Rule};

pub(crate) struct Ours(Rule);

impl Ours {
    pub(crate) fn new(start: usize, most: usize) -> Self {
        Self(Rule::new(1, most, start))
    }
}

impl Limits for Ours {
    fn limit(&self) -> usize {
        self.0.limit()
    }

    fn ended(&mut self, attempt: &Ended) {
        let &Ended { now, began, weight, is_full, is_overload, .. } = attempt;
        self.0.note(&End { now, began, weight, is_full, is_overload });
    }
}
