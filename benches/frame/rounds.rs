//! Who is measured when.

use super::clock::Cost;

/// What contenders cost, measured by turns, so that a mood of the machine falls on all of them.
pub(crate) struct Rounds<C> {
    contenders: Vec<C>,
    costs: Vec<Vec<Cost>>,
    begun: usize,
}

impl<C> Rounds<C> {
    pub(crate) fn new(contenders: Vec<C>) -> Self {
        let costs = contenders.iter().map(|_| Vec::new()).collect();
        Self { contenders, costs, begun: 0 }
    }

    /// Measures each once more. The first round warms up; the order turns from round to round, so that nobody always
    /// comes after the same one.
    pub(crate) fn go_on(&mut self, mut measure: impl FnMut(&C) -> Cost) {
        let mut turns: Vec<usize> = (0..self.contenders.len()).collect();
        if self.begun % 2 == 1 {
            turns.reverse();
        }
        for turn in turns {
            let cost = measure(&self.contenders[turn]);
            if self.begun > 0 {
                self.costs[turn].push(cost);
            }
        }
        self.begun += 1;
    }

    /// The contenders, and the medians of what they cost.
    pub(crate) fn medians(&self) -> impl Iterator<Item = (&C, Cost)> {
        self.contenders.iter().zip(self.costs.iter().map(|costs| Cost::median(costs)))
    }
}

/// The medians of so many rounds, one after another.
pub(crate) fn interleaved<C>(
    rounds: usize,
    contenders: &[C],
    mut measure: impl FnMut(&C) -> Cost,
) -> Vec<Cost> {
    let mut all = Rounds::new(contenders.iter().collect());
    (0..=rounds).for_each(|_| all.go_on(|contender| measure(contender)));
    all.medians().map(|(_, cost)| cost).collect()
}
