//! `redo`: the successes of an earlier result, which do not run again.

use std::vec::IntoIter;

/// The outputs of an earlier result, by input index.
pub(crate) struct Previous<T> {
    outputs: IntoIter<Option<T>>,
    /// The index of the first of these outputs.
    next: usize,
    total: usize,
    may_be_more: bool,
}

impl<T> Previous<T> {
    /// `may_be_more` is `true` if the total is only the number of items that were pulled.
    pub(crate) fn new(outputs: Vec<Option<T>>, total: usize, may_be_more: bool) -> Self {
        Self { outputs: outputs.into_iter(), next: 0, total, may_be_more }
    }

    /// Returns the number of items of the earlier result, and `true` if there may be more.
    pub(in super::super) fn total(&self) -> (usize, bool) {
        (self.total, self.may_be_more)
    }

    /// Returns `true` if a source that promises this number of items can be that of the earlier run.
    pub(in super::super) fn can_be(&self, promised: usize) -> bool {
        if self.may_be_more { promised >= self.total } else { promised == self.total }
    }

    /// Returns the number of items whose outputs are left to be taken, without those after the last output.
    pub(in super::super) fn left(&self) -> usize {
        let outputs = self.outputs.as_slice();
        outputs.iter().rposition(Option::is_some).map_or(0, |last| last + 1)
    }

    /// Takes the output of the item at this index, if the item has succeeded. The indices ascend by one.
    pub(in super::super) fn take(&mut self, index: usize) -> Option<T> {
        debug_assert_eq!(self.next, index, "an output was not asked for");
        self.next += 1;
        self.outputs.next().flatten()
    }
}
