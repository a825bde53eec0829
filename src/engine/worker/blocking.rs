//! An attempt on Tokio's blocking pool.

use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::lock::lock;
use crate::rt::{Handle, JoinHandle, Mutex};

use crate::panic_payload::into_message;

/// A function on the blocking pool. If it has not started when this is dropped, it never starts. If it has started, it runs
/// to its end.
pub struct BlockingAttempt<T, E> {
    work: Arc<Mutex<Work<T, E>>>,
    /// `Err` with Tokio's message if no thread could be started.
    task: Result<JoinHandle<Option<Returned<T, E>>>, String>,
}

/// The result of a function on the pool, or the message of its panic. A task returns `None` instead if its work was given up
/// before it started.
type Returned<T, E> = Result<Result<T, E>, String>;

/// An end of an attempt that is not a result of the map function. It is the payload of a panic between the poll of the
/// attempt and the code that catches the panics of attempts.
pub(in super::super) enum Unwound {
    /// The function panicked with this message.
    Panicked(String),
    /// No thread could be started, for this reason.
    NoThread(String),
    /// The runtime was shut down and has dropped the function.
    ShutDown,
}

enum Work<T, E> {
    /// In the queue of the pool, together with the item and the permits.
    Queued(Box<dyn FnOnce() -> Result<T, E> + Send>),
    Begun,
    GivenUp,
}

impl<T: Send + 'static, E: Send + 'static> BlockingAttempt<T, E> {
    /// Spawns a function on the pool of the current runtime.
    ///
    /// # Panics
    ///
    /// Panics if there is no current runtime.
    pub(in super::super) fn begin(function: impl FnOnce() -> Result<T, E> + Send + 'static) -> Self {
        let runtime = Handle::current();
        let work = Arc::new(Mutex::new(Work::Queued(Box::new(function))));
        let task = spawn(&runtime, &work);
        Self { work, task }
    }
}

/// Spawns the work. If no thread can be started, Tokio panics and leaves the task in the queue of the pool, where a later
/// thread finds it. The work is taken out of the task then. It cannot start before, because that needs the same lock.
fn spawn<T: Send + 'static, E: Send + 'static>(
    runtime: &Handle,
    work: &Arc<Mutex<Work<T, E>>>,
) -> Result<JoinHandle<Option<Returned<T, E>>>, String> {
    let queued = Arc::clone(work);
    let run = move || match replace(&queued, Work::Begun) {
        // The panic is caught here, because Tokio would drop its payload if the run no longer awaits the task.
        Work::Queued(function) => Some(catch_unwind(AssertUnwindSafe(function)).map_err(into_message)),
        Work::Begun | Work::GivenUp => None,
    };
    let mut held = lock(work);
    catch_unwind(AssertUnwindSafe(|| runtime.spawn_blocking(run))).map_err(|payload| {
        let given_up = mem::replace(&mut *held, Work::GivenUp);
        drop(held);
        // This returns the permits, which wakes other tasks, so the lock is released first.
        drop(given_up);
        into_message(payload)
    })
}

impl<T, E> BlockingAttempt<T, E> {
    /// Gives up work that waits in the queue. Tokio would keep it there until a thread reaches it. Returns `false` if the
    /// work has started already.
    pub(in super::super) fn give_up(&self) -> bool {
        if let Ok(task) = &self.task {
            task.abort();
        }
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
        let unwound = match &mut self.task {
            Err(message) => Unwound::NoThread(mem::take(message)),
            Ok(task) => match ready!(Pin::new(task).poll(cx)) {
                Ok(Some(Ok(result))) => return Poll::Ready(result),
                Ok(Some(Err(message))) => Unwound::Panicked(message),
                Ok(None) => return Poll::Pending,
                Err(error) => match error.try_into_panic() {
                    Ok(payload) => resume_unwind(payload),
                    Err(_) => Unwound::ShutDown,
                },
            },
        };
        resume_unwind(Box::new(unwound))
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
