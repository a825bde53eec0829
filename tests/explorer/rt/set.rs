//! Tokio's `JoinSet`.

use std::pin::Pin;
use std::task::{Context, Poll};

use super::task::{JoinError, JoinHandle, spawn};

#[derive(Debug)]
pub(crate) struct JoinSet<T>(Vec<JoinHandle<T>>);

impl<T> Default for JoinSet<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> JoinSet<T> {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn spawn(&mut self, future: impl Future<Output = T> + Send + 'static)
    where
        T: Send + 'static,
    {
        self.0.push(spawn(future));
    }

    pub(crate) fn abort_all(&self) {
        self.0.iter().for_each(JoinHandle::abort);
    }

    pub(crate) fn poll_join_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, JoinError>>> {
        if self.0.is_empty() {
            return Poll::Ready(None);
        }
        for at in 0..self.0.len() {
            if let Poll::Ready(ended) = Pin::new(&mut self.0[at]).poll(cx) {
                self.0.swap_remove(at);
                return Poll::Ready(Some(ended));
            }
        }
        Poll::Pending
    }
}

impl<T> Drop for JoinSet<T> {
    fn drop(&mut self) {
        self.abort_all();
    }
}
