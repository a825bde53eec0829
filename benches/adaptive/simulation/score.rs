//! The figures of a run.

use super::scenario::Scenario;
use super::world::Entry;

/// What a rule has reached in a scenario.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Score {
    /// Throughput, as a share of what is possible.
    pub(crate) throughput: f64,
    /// The median duration, as a multiple of that without a queue.
    pub(crate) median: f64,
    /// The share of attempts that ended as an overload.
    pub(crate) refused: f64,
    /// The seconds after which the last change of capacity was followed; the longest of all changes.
    pub(crate) recovery: Option<f64>,
    /// Jain's index of the throughputs of the clients.
    pub(crate) fairness: f64,
}

impl Score {
    pub(crate) fn of(scenario: &Scenario, log: &[Entry], unloaded: f64) -> Self {
        let (from, to) = scenario.counted;
        let counted = || log.iter().filter(|entry| (from..to).contains(&entry.now.as_secs_f64()));
        let total = counted().count() as f64;
        let refused = counted().filter(|entry| entry.is_overload).count() as f64;
        let done: f64 =
            counted().filter(|entry| !entry.is_overload).map(|entry| f64::from(entry.weight)).sum();
        let steps = ((to - from) * 10.0) as usize;
        let ideal: f64 = (0..steps).map(|step| scenario.ideal(from + step as f64 / 10.0) / 10.0).sum();
        let mut of_clients = vec![0.0; scenario.clients];
        counted().filter(|entry| !entry.is_overload).for_each(|entry| of_clients[entry.client] += 1.0);
        let sum: f64 = of_clients.iter().sum();
        let squares: f64 = of_clients.iter().map(|count| count * count).sum();
        Self {
            throughput: done / ideal,
            median: median(scenario, counted()) / unloaded,
            refused: refused / total.max(1.0),
            recovery: recovery(scenario, log, unloaded),
            fairness: sum * sum / squares / scenario.clients as f64,
        }
    }

    /// Returns the mean of each figure, and the longest recovery.
    pub(crate) fn mean(scores: &[Self]) -> Self {
        let mean = |figure: fn(&Self) -> f64| scores.iter().map(figure).sum::<f64>() / scores.len() as f64;
        let never = scores.iter().any(|score| score.recovery.is_none());
        let longest = scores.iter().filter_map(|score| score.recovery).fold(0.0, f64::max);
        Self {
            throughput: mean(|score| score.throughput),
            median: mean(|score| score.median),
            refused: mean(|score| score.refused),
            recovery: (!never).then_some(longest),
            fairness: mean(|score| score.fairness),
        }
    }
}

/// The median duration of what succeeded, apart from how slow the server was.
fn median<'a>(scenario: &Scenario, entries: impl Iterator<Item = &'a Entry>) -> f64 {
    let mut durations: Vec<f64> = entries
        .filter(|entry| !entry.is_overload)
        .map(|entry| entry.duration.as_secs_f64() / (scenario.slowness)(entry.now.as_secs_f64()))
        .collect();
    durations.sort_by(f64::total_cmp);
    durations.get(durations.len() / 2).copied().unwrap_or(f64::INFINITY)
}

/// Returns the seconds from a change of capacity to the first five good seconds, the longest of all changes; `None` if there are
/// none before the next change. Five seconds are good with 0.95 of the throughput that is possible, a median within 1.5 of the
/// unloaded one, and at most 1 refusal in 100.
fn recovery(scenario: &Scenario, log: &[Entry], unloaded: f64) -> Option<f64> {
    let is_good = |second: usize| {
        let now =
            || log.iter().filter(|entry| (second..second + 5).contains(&(entry.now.as_secs() as usize)));
        let done = now().filter(|entry| !entry.is_overload).count() as f64;
        let refused = now().count() as f64 - done;
        let ideal: f64 = (second..second + 5).map(|second| scenario.ideal(second as f64)).sum();
        done >= 0.95 * ideal && median(scenario, now()) <= 1.5 * unloaded && refused <= 0.01 * done
    };
    let mut longest: f64 = 0.0;
    for (index, change) in scenario.changes.iter().enumerate() {
        let end = scenario.changes.get(index + 1).copied().unwrap_or(scenario.length.as_secs_f64());
        longest = longest.max((*change as usize..end as usize - 4).position(is_good)? as f64);
    }
    Some(longest)
}
