//! The rule that finds the limit. It has no clock: each call passes the time since the start of the limiter.
//!
//! A server that is full lets items wait, and each of them waits equally long. So durations rise in proportion to the permits in
//! use, and `limit x base / duration` is the number of permits that the server can use at once. `base` is a duration without a
//! queue. The rule aims at this number, plus a short queue of its square root, so that the server never runs dry. The same square
//! root is in the staffing rule of Halfin and Whitt (1981) and in Netflix's gradient limit.
//!
//! The base is measured, because nobody knows it: for one round in many, the limit is halved, and the durations of that round are
//! the new base. If half of the limit halves the durations, the server is still full, and half of the half is measured, too.

use std::time::Duration;

use super::round::{Round, Taken};

/// A base is measured again when it is this old. An overload bounds the limit for as long.
const MEMORY: Duration = Duration::from_secs(10);
/// Measurements of the base take at most one part in this many of the time, and if durations rise, one part in half as many.
const MEASURED_SHARE: u32 = 32;
/// The limit grows by this factor until durations rise for the first time.
const FIRST_GROWTH: f64 = 1.5;
/// A server is still full during a measurement if the durations have fallen by the factor of the limit, or by up to this factor less.
const STILL_FULL: f64 = 1.2;
/// The factor of the limit after an overload, and of the bound for some time after it.
const AFTER_OVERLOAD: f64 = 0.8;
const BOUND_AFTER_OVERLOAD: f64 = 0.97;
/// More overloads than one in eight, over about 32 ends, are one overload of the server. Fewer are faults of items.
const OVERLOADS: f64 = 1.0 / 8.0;
const OVERLOAD_WINDOW: f64 = 32.0;

/// The shortest duration, in seconds.
const SHORTEST: f64 = 1e-9;

/// The reason for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Durations have not risen.
    Growth,
    /// Durations have risen.
    Queue,
    /// The base is measured, with half of the limit.
    Measurement,
    /// Attempts ended as overloads.
    Overload,
}

/// The end of an attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) now: Duration,
    pub(crate) began: Duration,
    pub(crate) weight: u32,
    /// `true` if more could have begun under a higher limit.
    pub(crate) is_full: bool,
    pub(crate) is_overload: bool,
}

#[derive(Debug)]
pub(crate) struct Rule {
    limit: f64,
    least: f64,
    most: f64,
    /// The duration without a queue, in seconds, and when it was measured.
    base: Option<f64>,
    base_at: Duration,
    /// The base is measured at present.
    measurement: Option<Measurement>,
    /// The time at which the last measurement ended, and the time that it took.
    measured_at: Duration,
    measuring_took: Duration,
    /// The highest limit since the last measurement.
    highest: f64,
    /// Attempts that began before do not count: they began under another limit.
    since: Duration,
    round: Round,
    /// `true` until durations have risen for the first time.
    is_new: bool,
    /// The share of overloads among the last ends.
    overloads: f64,
    /// The bound after an overload, and its end.
    bound: Option<(f64, Duration)>,
}

#[derive(Debug)]
struct Measurement {
    /// The limit and the duration before.
    limit: f64,
    before: f64,
    began: Duration,
}

impl Rule {
    pub(crate) fn new(least: usize, most: usize, start: usize) -> Self {
        Self {
            limit: start as f64,
            least: least as f64,
            most: most as f64,
            base: None,
            base_at: Duration::ZERO,
            measurement: None,
            measured_at: Duration::ZERO,
            measuring_took: Duration::ZERO,
            highest: start as f64,
            since: Duration::ZERO,
            round: Round::default(),
            is_new: true,
            overloads: 0.0,
            bound: None,
        }
    }

    /// Returns the present limit.
    pub(crate) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Replaces the limit. The rule goes on from there.
    pub(crate) fn replace(&mut self, limit: usize, now: Duration) {
        self.measurement = None;
        self.is_new = false;
        self.bound = None;
        self.restart(limit as f64, now);
        self.highest = self.limit;
    }

    /// Notes the end of an attempt. Returns the cause, if the limit has changed.
    pub(crate) fn note(&mut self, end: &End) -> Option<Cause> {
        if end.began < self.since {
            return None;
        }
        let before = self.limit();
        let cause = if end.is_overload { self.note_overload(end.now) } else { self.note_duration(end) };
        cause.filter(|_| self.limit() != before)
    }

    fn note_overload(&mut self, now: Duration) -> Option<Cause> {
        self.overloads += (1.0 - self.overloads) / OVERLOAD_WINDOW;
        if self.overloads <= OVERLOADS {
            return None;
        }
        self.overloads = 0.0;
        self.is_new = false;
        let limit = self.measurement.take().map_or(self.limit, |measurement| measurement.limit);
        self.bound = Some((limit * BOUND_AFTER_OVERLOAD, now + MEMORY));
        self.restart((limit * AFTER_OVERLOAD).floor(), now);
        self.highest = self.limit;
        Some(Cause::Overload)
    }

    fn note_duration(&mut self, end: &End) -> Option<Cause> {
        self.overloads -= self.overloads / OVERLOAD_WINDOW;
        let permits = match &self.measurement {
            Some(measurement) => measurement.limit,
            None => 2.0 * self.limit,
        };
        // An attempt that is ready at once takes no time by a paused clock.
        let duration = end.now.saturating_sub(end.began).as_secs_f64().max(SHORTEST);
        let taken = self.round.add(duration, end.weight, end.is_full, permits)?;
        match self.measurement.take() {
            Some(measurement) => Some(self.end_measurement(measurement, &taken, end.now)),
            None => self.end_round(&taken, end.now),
        }
    }

    fn end_measurement(&mut self, measurement: Measurement, taken: &Taken, now: Duration) -> Cause {
        let if_full = measurement.before * self.limit / measurement.limit;
        if self.limit >= 2.0 && self.limit > self.least && taken.duration < if_full * STILL_FULL {
            self.restart((self.limit / 2.0).floor(), now);
            self.measurement = Some(measurement);
            return Cause::Measurement;
        }
        self.base = Some(taken.duration);
        self.base_at = now;
        self.measured_at = now;
        self.measuring_took = now.saturating_sub(measurement.began);
        let Measurement { limit, before, .. } = measurement;
        self.restart(limit * (taken.duration / before).min(1.0) + headroom(limit), now);
        self.highest = self.limit;
        if self.limit < limit { Cause::Queue } else { Cause::Growth }
    }

    fn end_round(&mut self, taken: &Taken, now: Duration) -> Option<Cause> {
        let Taken { duration, noise, was_full } = *taken;
        let base = match self.base {
            Some(base) if duration + noise >= base => base,
            _ => {
                // A lower duration is a better base, and as good as a measurement.
                self.base_at = now;
                duration + noise
            }
        };
        self.base = Some(base);
        // A rise within the noise is none.
        let usable = self.limit * (base / (duration - noise).max(base));
        // The mean of equal durations may differ from them in its last digits.
        self.is_new &= usable * (1.0 + 1e-9) >= self.limit;
        let mut wanted = usable + headroom(self.limit);
        if self.is_new {
            wanted = wanted.max(self.limit * FIRST_GROWTH);
        }
        let has_fallen = wanted < self.highest - headroom(self.highest);
        let is_old = now.saturating_sub(self.base_at) >= MEMORY.max(self.measuring_took * MEASURED_SHARE);
        let may_measure = now.saturating_sub(self.measured_at) >= self.measuring_took * (MEASURED_SHARE / 2);
        if self.limit >= 2.0 && ((is_old && was_full) || (has_fallen && may_measure)) {
            let limit = self.limit;
            self.measurement = Some(Measurement { limit, before: duration, began: now });
            self.restart((wanted.min(limit) / 2.0).floor(), now);
            return Some(Cause::Measurement);
        }
        let wanted = if was_full { self.bounded(wanted, now) } else { wanted.min(self.limit) };
        let cause = if wanted < self.limit { Cause::Queue } else { Cause::Growth };
        let before = self.limit();
        self.limit = wanted.clamp(self.least, self.most);
        self.highest = self.highest.max(self.limit);
        if self.limit() != before {
            self.since = now;
        }
        Some(cause)
    }

    /// Returns the limit that an overload of late leaves of this one. It does not lower the present limit.
    fn bounded(&self, wanted: f64, now: Duration) -> f64 {
        match self.bound {
            Some((bound, end)) if now < end => wanted.min(bound.max(self.limit)),
            _ => wanted,
        }
    }

    /// Sets the limit, and begins a round.
    fn restart(&mut self, limit: f64, now: Duration) {
        self.limit = limit.clamp(self.least, self.most);
        self.since = now;
        self.round = Round::default();
    }
}

/// Returns how many permits more than the server can use at once are in use, so that it never runs dry.
fn headroom(limit: f64) -> f64 {
    (limit.sqrt() - 1.0).max(1.0)
}
