//! Statements over rows that the client sends.

use std::sync::OnceLock;

use sqlx::postgres::PgHasArrayType;
use sqlx::{Encode, Postgres, Type};

use super::link::Statement;
use crate::store::CacheKey;

/// A statement over rows, in two forms.
///
/// Several rows are sent as lists, a list for each column. The server makes a new plan for each call with lists, because
/// their lengths may differ. A single row is sent as values. The server keeps the plan of this form after five calls.
#[derive(Debug)]
pub(super) struct OverRows {
    lists: &'static str,
    values: OnceLock<String>,
}

impl OverRows {
    /// Creates a statement over `UNNEST($1::type[], ..)`.
    pub(super) const fn new(lists: &'static str) -> Self {
        Self { lists, values: OnceLock::new() }
    }

    /// Returns the form for these rows. Its parameters are bound in their order.
    pub(super) fn of<'q, R>(&'static self, rows: &'q [R]) -> Binding<'q, R> {
        let values = || self.lists.replace("UNNEST(", "(SELECT ").replace("[]", "");
        let form = if rows.len() == 1 { self.values.get_or_init(values) } else { self.lists };
        Binding { rows, statement: sqlx::query(form) }
    }
}

/// A statement whose parameters are being bound.
pub(super) struct Binding<'q, R> {
    rows: &'q [R],
    pub(super) statement: Statement<'q>,
}

impl<'q, R> Binding<'q, R> {
    /// Binds a value that is not of a row.
    pub(super) fn value<T: Encode<'q, Postgres> + Type<Postgres> + 'q>(mut self, value: T) -> Self {
        self.statement = self.statement.bind(value);
        self
    }

    /// Binds a column of the rows.
    pub(super) fn column<T>(self, of: impl Fn(&'q R) -> T) -> Self
    where
        T: Encode<'q, Postgres> + Type<Postgres> + PgHasArrayType + 'q,
    {
        match self.rows {
            [row] => self.value(of(row)),
            rows => self.value(rows.iter().map(of).collect::<Vec<T>>()),
        }
    }

    /// Binds the places of the rows, from 0.
    pub(super) fn places(self) -> Self {
        match self.rows {
            [_] => self.value(0_i64),
            rows => {
                let places: Vec<i64> = (0..).take(rows.len()).collect();
                self.value(places)
            }
        }
    }

    /// Binds the three columns of the keys.
    pub(super) fn keys(self, of: impl Fn(&'q R) -> &'q CacheKey) -> Self {
        self.column(|row| of(row).task.as_str())
            .column(|row| of(row).version.as_str())
            .column(|row| of(row).item_hash.as_str())
    }
}
