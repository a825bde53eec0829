//! Statements over many rows of values.

use sqlx::query_builder::Separated;
use sqlx::{QueryBuilder, Sqlite};

/// The maximum number of rows of one statement. SQLite allows 32,766 parameters. In measurements, more rows in one statement
/// were no faster.
pub(super) const MAX_ROWS: usize = 256;

/// A row under construction; its columns are bound one after another.
pub(super) type Columns<'q> = Separated<'q, Sqlite, &'static str>;

/// Pushes `VALUES (..), (..)`, one row for each of `rows`, which are at most [`MAX_ROWS`]. Adds rows of NULL up to the
/// next power of two. So a statement has nine forms, and all of them stay prepared.
pub(super) fn push_rows<T>(
    query: &mut QueryBuilder<Sqlite>,
    rows: &[T],
    columns: usize,
    mut bind: impl FnMut(&mut Columns<'_>, &T),
) {
    let padding = rows.len().next_power_of_two() - rows.len();
    let padded = rows.iter().map(Some).chain((0..padding).map(|_| None));
    query.push_values(padded, |mut row, of_row| match of_row {
        Some(of_row) => bind(&mut row, of_row),
        None => (0..columns).for_each(|_| {
            row.push_bind(None::<i64>);
        }),
    });
}
