//! A queue that allows removing any entry.

use std::collections::VecDeque;

/// An allocation for up to eight times this many entries is kept, even if few of them are in use.
const SMALL: usize = 32;

/// Values in ascending order of their numbers. Each operation takes O(log n), amortised.
///
/// A value that is removed leaves an empty entry behind, because closing the gap would move the entries around it.
/// Empty entries are dropped immediately at the front, and all together once they outnumber the values. So there are at
/// most twice as many entries as values, and each removal pays for dropping a constant number of them.
#[derive(Debug)]
pub(super) struct Numbered<T> {
    /// The first entry is never empty.
    entries: VecDeque<(u64, Option<T>)>,
    /// The number of entries that are not empty.
    len: usize,
}

impl<T> Numbered<T> {
    pub(super) fn new() -> Self {
        Self { entries: VecDeque::new(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a value at the end. Its number must be above all numbers before it.
    pub(super) fn push(&mut self, number: u64, value: T) {
        debug_assert!(self.entries.back().is_none_or(|(last, _)| *last < number), "the numbers ascend");
        self.entries.push_back((number, Some(value)));
        self.len += 1;
    }

    pub(super) fn first_number(&self) -> Option<u64> {
        self.entries.front().map(|(number, _)| *number)
    }

    /// Returns the values with their numbers, in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.entries.iter().filter_map(|(number, value)| Some((*number, value.as_ref()?)))
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let at = self.position(number)?;
        self.entries.get_mut(at)?.1.as_mut()
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<T> {
        let at = self.position(number)?;
        let value = self.entries.get_mut(at)?.1.take()?;
        self.len -= 1;
        self.compact();
        Some(value)
    }

    fn position(&self, number: u64) -> Option<usize> {
        self.entries.binary_search_by_key(&number, |(number, _)| *number).ok()
    }

    /// Drops empty entries, and returns memory after a long queue has become short.
    fn compact(&mut self) {
        while let Some((_, None)) = self.entries.front() {
            self.entries.pop_front();
        }
        if self.entries.len() > 2 * self.len {
            self.entries.retain(|(_, value)| value.is_some());
        }
        // Before the allocation changes again, three quarters of the values have to leave, or as many have to join.
        let least = self.len.max(SMALL);
        if self.entries.capacity() > 8 * least {
            self.entries.shrink_to(2 * least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns numbers below a bound that look random and are the same in every test run.
    fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
        let mut state = seed;
        move |bound| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        }
    }

    fn check<T>(queue: &Numbered<T>) {
        let (entries, capacity) = (queue.entries.len(), queue.entries.capacity());
        assert!(entries <= 2 * queue.len(), "{entries} entries for {} values", queue.len());
        assert!(capacity <= 8 * queue.len().max(SMALL), "room for {capacity}, {} values", queue.len());
    }

    #[test]
    fn random_operations_agree_with_a_plain_vec() {
        for seed in 0..200 {
            let mut roll = dice(seed);
            let (mut queue, mut plain) = (Numbered::new(), Vec::<(u64, u64)>::new());
            // The queue grows in the first half and shrinks in the second one.
            let mut number = 0;
            for step in 0..1_000 {
                let joins = if step < 500 { 7 } else { 3 };
                match roll(10) {
                    chance if chance < joins => {
                        number += 1 + roll(3);
                        let value = roll(1_000);
                        queue.push(number, value);
                        plain.push((number, value));
                    }
                    9 => {
                        let first = queue.iter().next().map(|(number, _)| number);
                        assert_eq!(first, plain.first().map(|(number, _)| *number), "seed {seed}");
                        if let Some(first) = first {
                            assert_eq!(queue.remove(first), Some(plain.remove(0).1), "seed {seed}");
                        }
                    }
                    chance => {
                        // Some of these numbers are not in the queue.
                        let wanted = roll(number + 2);
                        let at = plain.iter().position(|(number, _)| *number == wanted);
                        if chance % 2 == 0 {
                            let value = at.map(|at| plain.remove(at).1);
                            assert_eq!(queue.remove(wanted), value, "seed {seed}");
                        } else {
                            let value = at.map(|at| &mut plain[at].1);
                            assert_eq!(queue.get_mut(wanted), value, "seed {seed}");
                        }
                    }
                }
                let plainly = plain.iter().map(|(number, value)| (*number, value));
                assert!(queue.iter().eq(plainly), "seed {seed}");
                assert_eq!(queue.len(), plain.len(), "seed {seed}");
                check(&queue);
            }
        }
    }

    #[test]
    fn memory_is_bounded_while_the_first_stays_and_others_join_and_leave() {
        let mut queue = Numbered::new();
        queue.push(0, ());
        for number in 1..=3 {
            queue.push(number, ());
        }
        for number in 4..100_000 {
            queue.push(number, ());
            assert!(queue.remove(number - 3).is_some());
            check(&queue);
        }
        let allocated = queue.entries.capacity();
        assert!(allocated <= 16, "room for {allocated}, at most 5 values at once");
    }

    #[test]
    fn memory_is_returned_after_a_long_queue_has_become_short() {
        let mut queue = Numbered::new();
        (0..100_000).for_each(|number| queue.push(number, ()));
        // From the back, so that no entry is dropped because it is at the front.
        for number in (1..100_000).rev() {
            queue.remove(number).unwrap();
            check(&queue);
        }
        assert_eq!((queue.len(), queue.remove(0), queue.remove(0)), (1, Some(()), None));
    }
}
