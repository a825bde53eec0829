//! The order of the measurements.

use super::clock::Cost;

/// Returns the order of the contenders in a round. It rotates with each round, so that none always follows the same one.
pub(crate) fn turns(round: usize, contenders: usize) -> Vec<usize> {
    let turns = 0..contenders;
    if round % 2 == 0 { turns.collect() } else { turns.rev().collect() }
}

/// Returns the medians of this many rounds, after a round that warms up.
pub(crate) fn interleaved<C>(
    rounds: usize,
    contenders: &[C],
    mut measure: impl FnMut(&C) -> Cost,
) -> Vec<Cost> {
    for contender in contenders {
        measure(contender);
    }
    let mut costs = vec![Vec::with_capacity(rounds); contenders.len()];
    for round in 0..rounds {
        for turn in turns(round, contenders.len()) {
            costs[turn].push(measure(&contenders[turn]));
        }
    }
    costs.iter().map(|costs| Cost::median(costs)).collect()
}
