//! Tokio's semaphore, without waiting: the engine only tries to acquire.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use shuttle::sync::atomic::AtomicUsize;

#[derive(Debug)]
pub(crate) struct Semaphore(AtomicUsize);

impl Semaphore {
    pub(crate) const MAX_PERMITS: usize = usize::MAX >> 3;

    pub(crate) fn new(permits: usize) -> Self {
        Self(AtomicUsize::new(permits))
    }

    pub(crate) fn available_permits(&self) -> usize {
        self.0.load(SeqCst)
    }

    pub(crate) fn add_permits(&self, permits: usize) {
        self.0.fetch_add(permits, SeqCst);
    }

    /// Returns the number of permits that were removed.
    pub(crate) fn forget_permits(&self, most: usize) -> usize {
        let before = self.0.fetch_update(SeqCst, SeqCst, |permits| Some(permits - permits.min(most)));
        before.unwrap().min(most)
    }

    pub(crate) fn try_acquire_many_owned(
        self: Arc<Self>,
        permits: u32,
    ) -> Result<OwnedSemaphorePermit, usize> {
        let permits = permits as usize;
        self.0.fetch_update(SeqCst, SeqCst, |available| available.checked_sub(permits))?;
        Ok(OwnedSemaphorePermit { semaphore: self, permits })
    }
}

#[derive(Debug)]
pub(crate) struct OwnedSemaphorePermit {
    semaphore: Arc<Semaphore>,
    permits: usize,
}

impl OwnedSemaphorePermit {
    pub(crate) fn num_permits(&self) -> usize {
        self.permits
    }

    pub(crate) fn split(&mut self, permits: usize) -> Option<Self> {
        self.permits = self.permits.checked_sub(permits)?;
        Some(Self { semaphore: Arc::clone(&self.semaphore), permits })
    }

    pub(crate) fn merge(&mut self, mut other: Self) {
        self.permits += std::mem::take(&mut other.permits);
    }

    pub(crate) fn forget(mut self) {
        self.permits = 0;
    }
}

impl Drop for OwnedSemaphorePermit {
    fn drop(&mut self) {
        if self.permits > 0 {
            self.semaphore.add_permits(self.permits);
        }
    }
}
