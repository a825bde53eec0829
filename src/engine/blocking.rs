//! An attempt on Tokio's blocking pool.

use std::fmt;
use std::mem;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::lock::lock;
use crate::rt::{JoinHandle, Mutex, spawn_blocking};

/// A function on the blocking pool. Dropped, it is not begun; if it was begun, it runs on.
pub struct BlockingAttempt<T, E> {
    work: Arc<Mutex<Work<T, E>>>,
    /// Gives nothing where the work was given up before it began.
    task: JoinHandle<Option<Result<T, E>>>,
}

enum Work<T, E> {
    /// It is in the pool's queue. It has all that it needs with it, its permits as well.
    Queued(Box<dyn FnOnce() -> Result<T, E> + Send>),
    Begun,
    GivenUp,
}

impl<T: Send + 'static, E: Send + 'static> BlockingAttempt<T, E> {
    pub(super) fn begin(function: impl FnOnce() -> Result<T, E> + Send + 'static) -> Self {
        let work = Arc::new(Mutex::new(Work::Queued(Box::new(function))));
        let queued = Arc::clone(&work);
        let task = spawn_blocking(move || match replace(&queued, Work::Begun) {
            Work::Queued(function) => Some(function()),
            Work::Begun | Work::GivenUp => None,
        });
        Self { work, task }
    }
}

impl<T, E> BlockingAttempt<T, E> {
    /// Gives up work that waits in the queue; Tokio itself would keep it there until a thread comes to it.
    /// Says whether it was, or whether it has begun instead.
    pub(super) fn give_up(&self) -> bool {
        self.task.abort();
        match replace(&self.work, Work::GivenUp) {
            Work::Queued(_) | Work::GivenUp => true,
            Work::Begun => {
                replace(&self.work, Work::Begun);
                false
            }
        }
    }
}

impl<T, E> Future for BlockingAttempt<T, E> {
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, E>> {
        match ready!(Pin::new(&mut self.task).poll(cx)) {
            Ok(Some(result)) => Poll::Ready(result),
            Ok(None) => Poll::Pending,
            // The attempt's own panic, or one that says why it cannot be made.
            Err(error) => resume_unwind(
                error.try_into_panic().unwrap_or_else(|_| Box::new("the blocking pool was shut down")),
            ),
        }
    }
}

impl<T, E> Drop for BlockingAttempt<T, E> {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl<T, E> fmt::Debug for BlockingAttempt<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingAttempt").finish_non_exhaustive()
    }
}

fn replace<T, E>(work: &Mutex<Work<T, E>>, next: Work<T, E>) -> Work<T, E> {
    mem::replace(&mut *lock(work), next)
}
