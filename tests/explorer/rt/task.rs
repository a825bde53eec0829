//! Tokio's tasks.

use std::any::Any;
use std::pin::Pin;
use std::task::{Context, Poll};

use shuttle::future;

use super::world::Alive;

/// The task was aborted. A panic in a task ends the whole execution instead.
#[derive(Debug)]
pub(crate) struct JoinError(());

impl JoinError {
    pub(crate) fn try_into_panic(self) -> Result<Box<dyn Any + Send>, Self> {
        Err(self)
    }
}

/// Dropping the handle detaches the task.
#[derive(Debug)]
pub(crate) struct JoinHandle<T>(future::JoinHandle<T>);

pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    JoinHandle(future::spawn(Task { future: Box::pin(future), _alive: Alive::new() }))
}

/// The future is dropped before the task stops counting as alive.
struct Task<F> {
    future: Pin<Box<F>>,
    _alive: Alive,
}

impl<F: Future> Future for Task<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.future.as_mut().poll(cx)
    }
}

/// The runtime.
#[derive(Debug)]
pub(crate) struct Handle;

impl Handle {
    pub(crate) fn current() -> Self {
        Self
    }

    pub(crate) fn spawn_blocking<T: Send + 'static>(
        &self,
        function: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        spawn(async move { function() })
    }
}

impl<T> JoinHandle<T> {
    /// Drops the task's future at its next poll, as Tokio does.
    pub(crate) fn abort(&self) {
        self.0.abort();
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_err(|_| JoinError(()))
    }
}
