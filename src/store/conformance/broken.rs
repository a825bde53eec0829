//! The failures of a store, and their places in the suite.

use std::fmt::{self, Debug, Display};
use std::panic::Location;

use crate::store::StoreError;

/// The number of characters of a value that a failure shows.
const SHOWN: usize = 300;

/// The result of a case.
pub(super) type Checked = Result<(), Broken>;

/// The difference from the requirement, and the place in the suite that has detected it.
#[derive(Debug)]
pub(super) struct Broken {
    what: String,
    seen: Option<&'static Location<'static>>,
}

impl Broken {
    #[track_caller]
    pub(super) fn new(what: String) -> Self {
        Self { what, seen: Some(Location::caller()) }
    }

    pub(super) fn without_place(what: String) -> Self {
        Self { what, seen: None }
    }

    #[track_caller]
    pub(super) fn differs(found: &dyn Debug, required: &dyn Debug, why: Option<String>) -> Self {
        let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
        Self::new(format!("found {}, expected {}{why}", shown(found), shown(required)))
    }
}

/// Converts the error of a call that must succeed.
impl From<StoreError> for Broken {
    #[track_caller]
    fn from(error: StoreError) -> Self {
        Self::new(format!("a call that must succeed failed: {error}"))
    }
}

/// Returns the beginning of a value.
fn shown(value: &dyn Debug) -> String {
    let text = format!("{value:?}");
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}.. ({} bytes)", text.split_at(end).0, text.len()),
        None => text,
    }
}

/// Returns a value that must exist.
#[track_caller]
pub(super) fn some<T>(value: Option<T>, what: &str) -> Result<T, Broken> {
    value.ok_or_else(|| Broken::new(format!("{what} is missing")))
}

/// Fails the case.
macro_rules! fail {
    ($($what:tt)+) => {
        return Err($crate::store::conformance::Broken::new(format!($($what)+)))
    };
}

/// Fails the case unless this is true.
macro_rules! ensure {
    ($holds:expr $(,)?) => {
        $crate::store::conformance::ensure!($holds, "expected {}", stringify!($holds));
    };
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            $crate::store::conformance::fail!($($what)+);
        }
    };
}

/// Fails the case unless these are equal.
macro_rules! ensure_eq {
    ($found:expr, $required:expr $(,)?) => { $crate::store::conformance::ensure_eq!(@ $found, $required, None) };
    ($found:expr, $required:expr, $($why:tt)+) => {
        $crate::store::conformance::ensure_eq!(@ $found, $required, Some(format!($($why)+)))
    };
    (@ $found:expr, $required:expr, $why:expr) => {
        match (&$found, &$required) {
            (found, required) => {
                if *found != *required {
                    return Err($crate::store::conformance::Broken::differs(found, required, $why));
                }
            }
        }
    };
}

/// Makes cases of functions.
macro_rules! list_cases {
    ($($case:ident),* $(,)?) => {
        vec![$($crate::store::conformance::Case {
            name: stringify!($case),
            holds: |store| Box::pin($case(store)),
        }),*]
    };
}

pub(super) use {ensure, ensure_eq, fail, list_cases};

/// One case that a store fails.
#[derive(Debug)]
pub struct Failure {
    case: &'static str,
    broken: Broken,
}

impl Failure {
    pub(super) fn new(case: &'static str, broken: Broken) -> Self {
        Self { case, broken }
    }

    /// Returns the [name](super::Case::name) of the case.
    pub fn case(&self) -> &'static str {
        self.case
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.case, self.broken.what)?;
        self.broken.seen.map_or(Ok(()), |seen| write!(f, ", at {seen}"))
    }
}

impl std::error::Error for Failure {}

/// The cases that a store fails.
pub struct Nonconforming {
    failures: Vec<Failure>,
    cases: usize,
}

impl Nonconforming {
    pub(super) fn new(failures: Vec<Failure>, cases: usize) -> Self {
        Self { failures, cases }
    }

    /// Returns the cases that failed, in the order in which they ran.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }
}

impl Display for Nonconforming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store fails {} of {} cases", self.failures.len(), self.cases)?;
        self.failures.iter().try_for_each(|failure| write!(f, "\n  {failure}"))
    }
}

/// Formats as text, so that `unwrap` in a test shows one case a line.
impl Debug for Nonconforming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl std::error::Error for Nonconforming {}
