//! A value with a drop that is compiled once.

use std::mem::{self, ManuallyDrop};
use std::ops::{Deref, DerefMut};

/// Drops its value in a function of its own.
///
/// The compiler writes out the drop of a field wherever its owner can be dropped, unwinding included. This is large for a
/// collection of the run's items, which is rarely dropped. A call is as good and much smaller.
#[derive(Debug)]
pub(crate) struct Outlined<T: Default>(ManuallyDrop<T>);

impl<T: Default> Outlined<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(ManuallyDrop::new(value))
    }

    /// Takes the value out, and leaves the default, which must own nothing.
    pub(crate) fn take(this: &mut Self) -> T {
        mem::take(&mut *this.0)
    }
}

impl<T: Default> Default for Outlined<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: Default> Deref for Outlined<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Default> DerefMut for Outlined<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Default> Drop for Outlined<T> {
    #[inline(never)]
    fn drop(&mut self) {
        drop(Self::take(self));
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn the_value_is_dropped_once() {
        let value = Rc::new(());
        let mut outlined = Outlined::new(Some(Rc::clone(&value)));
        assert_eq!(Rc::strong_count(&value), 2);
        drop(Outlined::take(&mut outlined));
        assert_eq!((Rc::strong_count(&value), outlined.is_none()), (1, true));
        *outlined = Some(Rc::clone(&value));
        drop(outlined);
        assert_eq!(Rc::strong_count(&value), 1);
    }
}
