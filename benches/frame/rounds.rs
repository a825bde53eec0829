//! Who is measured when.

use super::clock::Cost;

/// The order of so many contenders in a round. It turns from round to round, so that nobody always comes after the same
/// one.
pub(crate) fn turns(round: usize, contenders: usize) -> Vec<usize> {
    let turns = 0..contenders;
    if round % 2 == 0 { turns.collect() } else { turns.rev().collect() }
}

/// The medians of so many rounds, after one that warms up.
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
