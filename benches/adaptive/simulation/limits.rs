//! The trait of all rules in the simulation.

use std::time::Duration;

/// A rule that finds the limit of a client.
pub(crate) trait Limits {
    /// Returns the present limit in permits.
    fn limit(&self) -> usize;

    /// Notes the end of an attempt. The attempt still counts as in use.
    fn ended(&mut self, attempt: &Ended);
}

/// An attempt that has ended.
pub(crate) struct Ended {
    /// The time since the start of the simulation.
    pub(crate) now: Duration,
    pub(crate) began: Duration,
    pub(crate) weight: u32,
    /// The permits in use when it began, with its own.
    pub(crate) in_use_at_start: usize,
    /// `true` if the client has no room for its next item.
    pub(crate) is_full: bool,
    pub(crate) is_overload: bool,
}

impl Ended {
    pub(crate) fn duration(&self) -> f64 {
        (self.now - self.began).as_secs_f64()
    }
}

/// A limit that does not change.
pub(crate) struct Fixed(pub(crate) usize);

impl Limits for Fixed {
    fn limit(&self) -> usize {
        self.0
    }

    fn ended(&mut self, _attempt: &Ended) {}
}
