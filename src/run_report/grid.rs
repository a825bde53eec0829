//! The use of permits over time, in bounded memory: a grid of rows and columns, whose columns become wider as the run goes on.

/// The number of columns. A run longer than this many columns makes each column twice as wide.
pub(super) const COLUMNS: usize = 512;

/// The number of rows. If more are needed, two neighbours become one.
pub(super) const ROWS: usize = 64;

/// The width of a column at first, in nanoseconds, as a power of two: 1,024.
const FIRST_WIDTH: u32 = 10;

/// What happened in one column of one row.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    /// The nanoseconds in which attempts ran.
    pub(super) busy: u64,
    /// The attempts that ended here.
    pub(super) ended: u32,
    /// Those of them that failed.
    pub(super) failed: u32,
}

/// What happened in one column of all rows.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column {
    /// The items that succeeded.
    pub(super) succeeded: u64,
    /// The items that failed.
    pub(super) failed: u64,
    /// The attempts that failed and were followed by another.
    pub(super) retried: u64,
    /// The nanoseconds in which items waited for their retry.
    pub(super) waiting: u64,
}

/// The grid of a run. Times are nanoseconds since its start.
#[derive(Debug, Clone)]
pub(super) struct Grid {
    /// The width of a column is `1 << width_bits` nanoseconds. So no time is divided to find its column.
    width_bits: u32,
    /// The number of rows of the timeline in one row of this grid is `1 << shift`.
    shift: u32,
    rows: Vec<Vec<Cell>>,
    columns: Vec<Column>,
}

impl Default for Grid {
    fn default() -> Self {
        Self {
            width_bits: FIRST_WIDTH,
            shift: 0,
            rows: Vec::new(),
            columns: vec![Column::default(); COLUMNS],
        }
    }
}

impl Grid {
    /// Returns the width of a column in nanoseconds.
    pub(super) fn width(&self) -> u64 {
        1 << self.width_bits
    }

    /// Returns how many rows of the timeline are in one of the grid.
    pub(super) fn rows_in_one(&self) -> u32 {
        1 << self.shift
    }

    pub(super) fn rows(&self) -> &[Vec<Cell>] {
        &self.rows
    }

    pub(super) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Returns the nanoseconds in which attempts ran, for each column.
    pub(super) fn busy(&self) -> Vec<u64> {
        let sum = |at| self.rows.iter().filter_map(|row| row.get(at)).map(|cell: &Cell| cell.busy).sum();
        (0..COLUMNS).map(sum).collect()
    }

    /// Adds the time in which a permit was in use.
    pub(super) fn add_time(&mut self, row: u32, start: u64, end: u64) {
        self.reach(end);
        let bits = self.width_bits;
        let cells = self.cells(row);
        spread(bits, start, end, |column, part| {
            if let Some(cell) = cells.get_mut(column) {
                cell.busy += part;
            }
        });
    }

    /// Adds the end of an attempt.
    pub(super) fn add_end(&mut self, row: u32, end: u64, has_failed: bool) {
        self.reach(end);
        let column = (end >> self.width_bits) as usize;
        if let Some(cell) = self.cells(row).get_mut(column) {
            cell.add_end(has_failed);
        }
    }

    /// Adds an attempt with a permit of its own: the time and the end.
    #[inline]
    pub(super) fn add_attempt(&mut self, row: u32, start: u64, end: u64, has_failed: bool) {
        let bits = self.width_bits;
        let (from, to) = ((start >> bits) as usize, (end >> bits) as usize);
        if from == to && row >> self.shift < ROWS as u32 {
            // Most attempts are shorter than a column.
            let cells = self.rows.get_mut((row >> self.shift) as usize);
            if let Some(cell) = cells.and_then(|cells| cells.get_mut(to)) {
                cell.busy += end - start;
                return cell.add_end(has_failed);
            }
        }
        self.add_time(row, start, end);
        self.add_end(row, end, has_failed);
    }

    /// Returns the cells of a row.
    fn cells(&mut self, row: u32) -> &mut [Cell] {
        while row >> self.shift >= ROWS as u32 {
            self.merge_rows();
        }
        let at = (row >> self.shift) as usize;
        if at >= self.rows.len() {
            self.rows.resize_with(at + 1, || vec![Cell::default(); COLUMNS]);
        }
        self.rows.get_mut(at).map_or(&mut [], Vec::as_mut_slice)
    }

    /// Adds a wait for a retry.
    pub(super) fn add_wait(&mut self, start: u64, end: u64) {
        self.reach(end);
        let columns = &mut self.columns;
        spread(self.width_bits, start, end, |column, part| {
            if let Some(column) = columns.get_mut(column) {
                column.waiting += part;
            }
        });
    }

    /// Returns the column of a time.
    pub(super) fn column_at(&mut self, at: u64) -> Option<&mut Column> {
        self.reach(at);
        self.columns.get_mut((at >> self.width_bits) as usize)
    }

    /// Makes the columns as wide as a time needs.
    pub(super) fn reach(&mut self, at: u64) {
        while at >> self.width_bits >= COLUMNS as u64 {
            self.width_bits += 1;
            merge_pairs(&mut self.columns, |one, other| Column {
                succeeded: one.succeeded + other.succeeded,
                failed: one.failed + other.failed,
                retried: one.retried + other.retried,
                waiting: one.waiting + other.waiting,
            });
            for row in &mut self.rows {
                merge_pairs(row, Cell::and);
            }
        }
    }

    fn merge_rows(&mut self) {
        self.shift += 1;
        let half = self.rows.len().div_ceil(2);
        for at in 0..half {
            let other = self.rows.get(2 * at + 1).cloned().unwrap_or_default();
            let mut one = self.rows.get(2 * at).cloned().unwrap_or_default();
            for (cell, other) in one.iter_mut().zip(other) {
                *cell = cell.and(other);
            }
            if let Some(row) = self.rows.get_mut(at) {
                *row = one;
            }
        }
        self.rows.truncate(half);
    }
}

impl Cell {
    #[inline]
    fn add_end(&mut self, has_failed: bool) {
        self.ended = self.ended.saturating_add(1);
        self.failed = self.failed.saturating_add(u32::from(has_failed));
    }

    fn and(self, other: Self) -> Self {
        Self {
            busy: self.busy + other.busy,
            ended: self.ended.saturating_add(other.ended),
            failed: self.failed.saturating_add(other.failed),
        }
    }
}

/// Divides a period among the columns, which are `1 << bits` wide.
#[inline]
fn spread(bits: u32, start: u64, end: u64, mut add: impl FnMut(usize, u64)) {
    let mut from = start;
    while from < end {
        let column = from >> bits;
        let to = end.min((column + 1) << bits);
        add(column as usize, to - from);
        from = to;
    }
}

/// Moves each pair of neighbours into the first half. The other half is empty then.
fn merge_pairs<T: Copy + Default>(cells: &mut [T], and: impl Fn(T, T) -> T) {
    for at in 0..cells.len() {
        let pair = (cells.get(2 * at).copied(), cells.get(2 * at + 1).copied());
        if let Some(cell) = cells.get_mut(at) {
            *cell = match pair {
                (Some(one), Some(other)) => and(one, other),
                (one, _) => one.unwrap_or_default(),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_when_columns_and_rows_are_merged() {
        let mut grid = Grid::default();
        let (mut busy, mut waiting) = (0, 0);
        for n in 0..5_000_u64 {
            let (start, length) = (n * 3_000, n * 7 % 90_000);
            grid.add_time((n % 1_000) as u32, start, start + length);
            grid.add_end((n % 1_000) as u32, start + length, n % 10 == 0);
            grid.add_wait(start, start + n);
            if let Some(column) = grid.column_at(start) {
                column.succeeded += 1;
            }
            (busy, waiting) = (busy + length, waiting + n);
        }
        assert_eq!(grid.busy().iter().sum::<u64>(), busy);
        let cells = grid.rows().iter().flatten();
        assert_eq!(cells.map(|cell| u64::from(cell.failed)).sum::<u64>(), 500);
        let columns = grid.columns();
        assert_eq!(columns.iter().map(|column| column.waiting).sum::<u64>(), waiting);
        assert_eq!(columns.iter().map(|column| column.succeeded).sum::<u64>(), 5_000);
        assert!(grid.rows().len() <= ROWS && grid.rows_in_one() == 16);
    }

    #[test]
    fn an_attempt_is_in_the_columns_in_which_it_ran() {
        let mut grid = Grid::default();
        grid.add_time(0, 1_536, 3_328);
        grid.add_end(0, 3_328, true);
        let busy: Vec<_> = grid.rows()[0].iter().take(5).map(|cell| (cell.busy, cell.failed)).collect();
        assert_eq!(busy, [(0, 0), (512, 0), (1_024, 0), (256, 1), (0, 0)]);
        // One column more than there are: each becomes twice as wide.
        grid.add_time(1, COLUMNS as u64 * 1_024, COLUMNS as u64 * 1_024 + 1);
        let busy: Vec<_> = grid.rows()[0].iter().take(3).map(|cell| (cell.busy, cell.failed)).collect();
        assert_eq!((grid.width(), busy), (2_048, vec![(512, 0), (1_280, 1), (0, 0)]));
    }
}
