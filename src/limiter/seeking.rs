//! The parts of the state of a limiter that finds its own number of permits.

use super::adaptive::{Adaptive, Change, End};
use super::state::State;
use super::ticket::Ended;
use crate::observe::LimitChange;

impl State {
    /// Returns the state of a limiter that begins with the limit of this rule.
    pub(super) fn seeking(adaptive: Adaptive) -> Self {
        let mut state = Self::new(adaptive.limit(), "");
        state.most = adaptive.most();
        state.adaptive = Some(Box::new(adaptive));
        state
    }

    /// Returns `true` if the limiter finds its own number of permits.
    pub(super) fn is_adaptive(&self) -> bool {
        self.adaptive.is_some()
    }

    /// Sets the number of permits. A rule goes on from there, within its range. 0 holds everything back.
    pub(super) fn set_permits(&mut self, permits: usize) {
        let (from, now) = (self.permits, self.read_clock());
        let Some(adaptive) = &mut self.adaptive else {
            self.permits = permits;
            self.most = self.most.max(permits);
            return;
        };
        self.permits = if permits == 0 { 0 } else { adaptive.replace(permits, now) };
        adaptive.record(from, self.permits, LimitChange::Set);
    }

    /// Notes the end of an attempt, which still counts as in use. The rule may change the number of permits.
    #[cold]
    pub(super) fn note_end(&mut self, weight: u32, ended: &Ended) {
        let (now, lacks_permits) = (self.read_clock(), self.lacks_permits(weight));
        let began = self.time_at(ended.began);
        // After `set_permits(0)`, it is not for the rule to let attempts start.
        let Some(adaptive) = self.adaptive.as_mut().filter(|_| self.permits > 0) else { return };
        // When several attempts end at the same instant, only the first of them ends while all permits are in use.
        let is_full = adaptive.was_full_since(began, now, lacks_permits);
        adaptive.note(&End { now, began, weight, is_full, is_overload: ended.is_overload });
        self.permits = adaptive.limit();
    }

    /// Returns `true` if an attempt could not begin for want of permits alone: one that waits, or another of this weight. A run that
    /// has just taken permits has no request in the queue until it asks for more.
    fn lacks_permits(&self, weight: u32) -> bool {
        let now = self.now();
        let weight = self.head(now).map_or(weight, |(_, request)| request.weight);
        !self.fits(weight) && self.is_due(weight, now)
    }

    /// Returns the number of all changes by the rule so far.
    pub(super) fn limit_changes(&self) -> u64 {
        self.adaptive.as_ref().map_or(0, |adaptive| adaptive.changed())
    }

    /// Returns the changes by the rule after the first `seen` ones, and the number of all.
    pub(super) fn limit_changes_after(&self, seen: u64) -> (Vec<Change>, u64) {
        match &self.adaptive {
            Some(adaptive) => (adaptive.changes_after(seen).collect(), adaptive.changed()),
            None => (Vec::new(), seen),
        }
    }
}
