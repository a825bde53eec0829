//! A stub of `src/checkpoint.rs`, which would need a store. With the feature `store`, an item's context has a checkpoint.

#[derive(Debug, Clone)]
pub(crate) struct Checkpoint(());

impl Checkpoint {
    pub(crate) const NONE: Self = Self(());
}
