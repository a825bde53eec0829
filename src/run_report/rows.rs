//! The rows of the timeline: attempts that run at the same time are in different rows.

/// The bits of a word.
const BITS: u32 = u64::BITS;

/// Gives each attempt the lowest row that is free, as if each row were a permit.
#[derive(Debug, Clone, Default)]
pub(super) struct Rows {
    /// A bit for each row that is taken.
    taken: Vec<u64>,
    /// All words before this one have no free row.
    first: usize,
    /// The number of rows that are taken.
    count: usize,
}

impl Rows {
    pub(super) fn take(&mut self) -> u32 {
        loop {
            match self.taken.get_mut(self.first) {
                Some(&mut u64::MAX) => self.first += 1,
                Some(word) => {
                    let bit = word.trailing_ones();
                    *word |= 1 << bit;
                    self.count += 1;
                    return self.first as u32 * BITS + bit;
                }
                None => self.taken.push(0),
            }
        }
    }

    /// Returns how many rows are taken.
    pub(super) fn taken(&self) -> usize {
        self.count
    }

    pub(super) fn give_back(&mut self, row: u32) {
        let at = (row / BITS) as usize;
        if let Some(word) = self.taken.get_mut(at) {
            *word &= !(1 << (row % BITS));
            self.count -= 1;
            self.first = self.first.min(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_lowest_free_row_is_taken() {
        let mut rows = Rows::default();
        let mut free: BTreeSet<u32> = (0..1_000).collect();
        let mut taken = Vec::new();
        for n in 0..20_000_usize {
            // More and more rows at first, then fewer and fewer.
            let takes = if n < 10_000 { n % 7 != 0 } else { n % 3 == 0 };
            if (takes && !free.is_empty()) || taken.is_empty() {
                let row = rows.take();
                assert_eq!(Some(row), free.pop_first());
                taken.push(row);
                assert_eq!(rows.taken(), taken.len());
            } else {
                let row = taken.swap_remove(n * 31 % taken.len());
                rows.give_back(row);
                free.insert(row);
            }
        }
    }
}
