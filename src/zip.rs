//! Zips several lists into one, element by element.

use std::iter::Zip;

use crate::count::Count;

/// The error of zipping lists of different lengths.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the lists to zip must have the same length, but list {list} has {} and list 1 has {required}",
    Count(*found, "item")
)]
pub struct LengthMismatch {
    list: usize,
    found: usize,
    required: usize,
}

impl LengthMismatch {
    fn check(list: usize, found: usize, required: usize) -> Result<(), Self> {
        if found == required { Ok(()) } else { Err(Self { list, found, required }) }
    }
}

/// Zips two lists of the same length.
///
/// [`Iterator::zip`] ends with the shorter list and drops the rest of the longer one. This function returns an error
/// instead.
///
/// # Errors
///
/// Returns a [`LengthMismatch`] if the lengths differ. Nothing is taken from either list then.
///
/// # Examples
///
/// ```
/// use async_map_task::zip_exact;
///
/// let pairs: Vec<_> = zip_exact(["ada", "grace"], [36, 85])?.collect();
/// assert_eq!(pairs, [("ada", 36), ("grace", 85)]);
///
/// let error = zip_exact(["ada", "grace"], [36]).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "the lists to zip must have the same length, but list 2 has 1 item and list 1 has 2"
/// );
/// # Ok::<_, async_map_task::LengthMismatch>(())
/// ```
pub fn zip_exact<A, B>(a: A, b: B) -> Result<Zip<A::IntoIter, B::IntoIter>, LengthMismatch>
where
    A: IntoIterator<IntoIter: ExactSizeIterator>,
    B: IntoIterator<IntoIter: ExactSizeIterator>,
{
    let (a, b) = (a.into_iter(), b.into_iter());
    LengthMismatch::check(2, b.len(), a.len())?;
    Ok(a.zip(b))
}

/// One element of each of three lists.
type Triple<A, B, C> = (<A as IntoIterator>::Item, <B as IntoIterator>::Item, <C as IntoIterator>::Item);

/// Zips three lists of the same length; see [`zip_exact`].
///
/// # Errors
///
/// Returns a [`LengthMismatch`] if the lengths differ. Nothing is taken from any list then.
///
/// # Examples
///
/// ```
/// use async_map_task::zip3_exact;
///
/// let rows: Vec<_> = zip3_exact([1, 2], ['a', 'b'], [true, false])?.collect();
/// assert_eq!(rows, [(1, 'a', true), (2, 'b', false)]);
/// # Ok::<_, async_map_task::LengthMismatch>(())
/// ```
pub fn zip3_exact<A, B, C>(
    a: A,
    b: B,
    c: C,
) -> Result<impl ExactSizeIterator<Item = Triple<A, B, C>>, LengthMismatch>
where
    A: IntoIterator<IntoIter: ExactSizeIterator>,
    B: IntoIterator<IntoIter: ExactSizeIterator>,
    C: IntoIterator<IntoIter: ExactSizeIterator>,
{
    let (a, b, c) = (a.into_iter(), b.into_iter(), c.into_iter());
    LengthMismatch::check(2, b.len(), a.len())?;
    LengthMismatch::check(3, c.len(), a.len())?;
    Ok(a.zip(b).zip(c).map(|((a, b), c)| (a, b, c)))
}

/// One element of each of four lists.
type Quadruple<A, B, C, D> = (
    <A as IntoIterator>::Item,
    <B as IntoIterator>::Item,
    <C as IntoIterator>::Item,
    <D as IntoIterator>::Item,
);

/// Zips four lists of the same length; see [`zip_exact`].
///
/// # Errors
///
/// Returns a [`LengthMismatch`] if the lengths differ. Nothing is taken from any list then.
///
/// # Examples
///
/// ```
/// use async_map_task::zip4_exact;
///
/// let rows: Vec<_> = zip4_exact([1, 2], ['a', 'b'], [true, false], ["x", "y"])?.collect();
/// assert_eq!(rows, [(1, 'a', true, "x"), (2, 'b', false, "y")]);
/// # Ok::<_, async_map_task::LengthMismatch>(())
/// ```
pub fn zip4_exact<A, B, C, D>(
    a: A,
    b: B,
    c: C,
    d: D,
) -> Result<impl ExactSizeIterator<Item = Quadruple<A, B, C, D>>, LengthMismatch>
where
    A: IntoIterator<IntoIter: ExactSizeIterator>,
    B: IntoIterator<IntoIter: ExactSizeIterator>,
    C: IntoIterator<IntoIter: ExactSizeIterator>,
    D: IntoIterator<IntoIter: ExactSizeIterator>,
{
    let (a, b, c, d) = (a.into_iter(), b.into_iter(), c.into_iter(), d.into_iter());
    LengthMismatch::check(2, b.len(), a.len())?;
    LengthMismatch::check(3, c.len(), a.len())?;
    LengthMismatch::check(4, d.len(), a.len())?;
    Ok(a.zip(b).zip(c).zip(d).map(|(((a, b), c), d)| (a, b, c, d)))
}
