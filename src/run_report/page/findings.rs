//! What stands out in a run, in sentences.

use super::super::snapshot::Snapshot;
use super::text::{duration, most_of, name_of, number, percent};
use crate::count::Count;

/// Permits that are in use for less than this fraction of the time are worth a sentence.
const WELL_USED: f64 = 0.8;

/// A tail that takes more than this fraction of the run is worth a sentence.
const LONG_TAIL: f64 = 0.15;

/// Returns the sentences, the most important first.
pub(super) fn findings(run: &Snapshot) -> Vec<String> {
    [failures(run), retries(run), tail(run), permits(run), slow_items(run)].into_iter().flatten().collect()
}

fn failures(run: &Snapshot) -> Option<String> {
    let first = run.failures.iter().find(|group| group.items > 0)?;
    let share = match first.items == run.items.failed {
        true => "all".to_owned(),
        false => format!("{} of them", number(first.items)),
    };
    // The group may have several texts that differ only in numbers.
    let how = match &first.text {
        Some(text) => format!("like “{text}” ({})", first.kind),
        None => format!("with the kind “{}”", first.kind),
    };
    Some(format!("{} failed, {share} {how}", items(run.items.failed)))
}

fn items(count: u64) -> String {
    if count == 1 { "1 item".to_owned() } else { format!("{} items", number(count)) }
}

fn retries(run: &Snapshot) -> Option<String> {
    let (retries, attempts) = (run.attempts.retries, run.attempts.started);
    if retries == 0 {
        return None;
    }
    let share = percent(retries as f64 / attempts as f64);
    Some(format!("{share} of the {} attempts were retries", number(attempts)))
}

/// The time at the end in which at most half of the permits were in use, because no items were left.
fn tail(run: &Snapshot) -> Option<String> {
    let over_time = &run.over_time;
    let most = most_of(&over_time.in_flight);
    let busy = over_time.in_flight.iter().rposition(|in_flight| *in_flight > most / 2.0)?;
    let length = run.elapsed - (busy + 1) as f64 * over_time.period;
    let slowest = run.slowest.first()?;
    if !run.ended || most < 2.0 || length < run.elapsed * LONG_TAIL {
        return None;
    }
    let (length, share) = (duration(length), percent(length / run.elapsed));
    let item = name_of(slowest.label.as_deref(), slowest.item);
    Some(format!(
        "a tail of {length}, which is {share} of the run, had less than half of the attempts in flight; the slowest item, \
         {item}, took {}",
        duration(slowest.elapsed)
    ))
}

fn permits(run: &Snapshot) -> Option<String> {
    let in_use = run.permits_in_use?;
    if run.attempts.started == 0 || run.total.is_some_and(|total| total < run.concurrency) {
        return None;
    }
    let (share, concurrency) = (percent(in_use), Count(run.concurrency, "permit"));
    Some(if in_use >= WELL_USED {
        format!("{share} of the time of {concurrency} was in use")
    } else {
        format!(
            "only {share} of the time of {concurrency} was in use: the run waited for items, limits, retries, its sink or its store"
        )
    })
}

/// A few items that take much longer than the others.
fn slow_items(run: &Snapshot) -> Option<String> {
    let durations = &run.item_durations;
    let is_skewed = durations.count >= 20 && durations.p99 > 10.0 * durations.p50;
    is_skewed.then(|| {
        format!(
            "1% of the items took {} or longer, while half of them took at most {}",
            duration(durations.p99),
            duration(durations.p50)
        )
    })
}
