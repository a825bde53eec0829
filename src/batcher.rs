//! One call for the items of many callers.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, ready};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::{Either, join_all, select};
use futures::stream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::count::Count;
use crate::lock::lock;
use crate::outcome::{ItemError, ItemOutcome};
use crate::rt::Mutex;
use crate::task::AsyncMapTask;

/// Collects the items of many callers into calls for batches, such as the handlers of a service that share one upstream API. A
/// clone shares its calls.
///
/// It is [`map_batches`](crate::Over::map_batches) for items that come from anywhere: a call takes whatever waits, up to `size`
/// items; each item has its own result; and a call that fails as a whole is made again and then split. The settings of the
/// [task](Self::with_task) apply: `concurrency` counts calls, and retries, time limits and limiters are as in a run. A run
/// can share it with handlers: `task.run(items, |item| batcher.call(item))`.
///
/// The first call starts a Tokio task, in which all calls are made. It ends when the last clone is dropped. If its runtime is shut
/// down, the next call starts another.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use async_map_task::Batcher;
/// use std::time::Duration;
///
/// let names = Batcher::new(100, |ids: Vec<u32>| async move {
///     // One request for all of them.
///     Ok(ids.into_iter().map(|id| if id == 0 { Err("no such id") } else { Ok(format!("user {id}")) }).collect())
/// })
/// .batch_wait(Duration::from_millis(2));
/// let (one, other, none) = tokio::join!(names.call(1), names.call(2), names.call(0)); // one request
/// assert_eq!((one?, other?), ("user 1".to_owned(), "user 2".to_owned()));
/// assert_eq!(none.unwrap_err().to_string(), "failed after 1 attempt: no such id");
/// # Ok(())
/// # }
/// ```
pub struct Batcher<I, T, E> {
    run: Arc<dyn RunCalls<I, T, E>>,
    options: Options<I>,
    /// The queue of the run that makes the calls, once there is one.
    queue: Arc<Mutex<Option<UnboundedSender<Call<I, T, E>>>>>,
}

struct Options<I> {
    wait: Duration,
    weight: Option<(Arc<dyn Fn(&I) -> u32 + Send + Sync>, u32)>,
}

/// An item on its way into a batch.
struct Call<I, T, E> {
    item: I,
    caller: CancellationToken,
    reply: oneshot::Sender<Result<T, ItemError<E>>>,
}

/// An item of a batch.
#[derive(Clone)]
struct Entry<I> {
    item: I,
    /// Cancelled once the caller does not wait any more.
    caller: CancellationToken,
}

/// The reason why an item has no output.
enum Refusal<E> {
    Error(E),
    /// Its caller does not wait any more.
    Left,
    /// Its call returned the wrong number of results.
    Fault(String),
}

/// Makes the calls for a queue of items, until the queue is closed.
trait RunCalls<I, T, E>: Send + Sync {
    fn run(
        &self,
        queue: UnboundedReceiver<Call<I, T, E>>,
        options: Options<I>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

impl<I, T, E> Batcher<I, T, E>
where
    I: Clone + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    /// Creates a batcher with the settings of [`AsyncMapTask::default()`]: 4 calls at once, no retries, no time limit.
    ///
    /// `f` is as in [`map_batches`](crate::Over::map_batches).
    pub fn new<F, Fut>(size: usize, f: F) -> Self
    where
        F: Fn(Vec<I>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<Result<T, E>>, E>> + Send + 'static,
    {
        Self::with_task(&AsyncMapTask::default(), size, f)
    }

    /// Creates a batcher with the settings of a task.
    ///
    /// Its success criteria and its [`run_timeout`](crate::AsyncMapTaskBuilder::run_timeout) do not apply, because the calls have
    /// no end.
    pub fn with_task<F, Fut>(task: &AsyncMapTask, size: usize, f: F) -> Self
    where
        F: Fn(Vec<I>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<Result<T, E>>, E>> + Send + 'static,
    {
        let run = Arc::new(Calls { task: task.endless(), size: size.max(1), function: Arc::new(f) });
        Self { run, options: Options { wait: Duration::ZERO, weight: None }, queue: Arc::default() }
    }

    /// Sets how long a call waits for more items after it could start; see [`batch_wait`](crate::MapRun::batch_wait). The default
    /// is zero.
    ///
    /// A few milliseconds make fewer and larger calls under a light load, and each item up to so much slower. While all
    /// calls are in use, items gather anyway.
    #[must_use = "it returns the batcher with this option"]
    pub fn batch_wait(mut self, wait: Duration) -> Self {
        self.options.wait = wait;
        self.alone()
    }

    /// Sets how much an item weighs, and how much the items of one call may weigh together; see
    /// [`batch_weight`](crate::MapRun::batch_weight). The default is no such bound. A `most` of 0 counts as 1.
    #[must_use = "it returns the batcher with this option"]
    pub fn batch_weight(mut self, function: impl Fn(&I) -> u32 + Send + Sync + 'static, most: u32) -> Self {
        self.options.weight = Some((Arc::new(function), most.max(1)));
        self.alone()
    }

    /// Returns the batcher with a queue of its own: clones that exist already have other options.
    fn alone(self) -> Self {
        Self { queue: Arc::default(), ..self }
    }

    /// Adds an item to the next batch, and waits for its result.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the item leaves. A call that has begun goes on for the other items of its batch. If none is left,
    /// the call is cancelled.
    ///
    /// # Errors
    ///
    /// Returns the error of the item, as in the outcome of a run. It is [`Faulted`](ItemError::Faulted), after 0 attempts, if the
    /// runtime that makes the calls is shut down.
    ///
    /// # Panics
    ///
    /// Panics if it is called outside a Tokio runtime.
    pub async fn call(&self, item: I) -> Result<T, ItemError<E>> {
        let (reply, answer) = oneshot::channel();
        let caller = CancellationToken::new();
        let _leaves = caller.clone().drop_guard();
        self.send(Call { item, caller, reply });
        answer.await.unwrap_or_else(|_| {
            let message = "the runtime that makes the calls of the batcher was shut down".to_owned();
            Err(ItemError::Faulted { message, attempts: 0 })
        })
    }

    /// Passes an item to the run that makes the calls, and starts it if there is none.
    fn send(&self, call: Call<I, T, E>) {
        let mut queue = lock(&self.queue);
        let refused = match &*queue {
            Some(queue) => queue.send(call).err().map(|refused| refused.0),
            None => Some(call),
        };
        if let Some(call) = refused {
            // Each caller has one item in the queue and waits, so the callers bound it.
            let (sender, receiver) = unbounded_channel();
            let _is_open = sender.send(call);
            tokio::spawn(self.run.run(receiver, self.options.clone()));
            *queue = Some(sender);
        }
    }
}

/// The calls of a batcher, with the type of its function.
struct Calls<F> {
    task: AsyncMapTask,
    size: usize,
    function: Arc<F>,
}

impl<I, T, E, F, Fut> RunCalls<I, T, E> for Calls<F>
where
    I: Clone + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
    F: Fn(Vec<I>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Vec<Result<T, E>>, E>> + Send + 'static,
{
    fn run(
        &self,
        mut queue: UnboundedReceiver<Call<I, T, E>>,
        Options { wait, weight }: Options<I>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let function = Arc::clone(&self.function);
        let replies = Arc::new(Mutex::new(HashMap::new()));
        let (waiting, mut index) = (Arc::clone(&replies), 0_usize);
        let entries = stream::poll_fn(move |cx: &mut Context<'_>| {
            let Some(Call { item, caller, reply }) = ready!(queue.poll_recv(cx)) else {
                return Poll::Ready(None);
            };
            lock(&waiting).insert(index, reply);
            index += 1;
            Poll::Ready(Some(Entry { item, caller }))
        });
        let (weigh, most) = match weight {
            Some((weigh, most)) => (Some(weigh), most),
            None => (None, u32::MAX),
        };
        let run = self
            .task
            .over_stream(entries)
            .map_batches(self.size, move |entries| call_for(Arc::clone(&function), entries))
            .retry_if(|refusal: &Refusal<E>| matches!(refusal, Refusal::Error(_)))
            .batch_wait(wait)
            .batch_weight(move |entry: &Entry<I>| weigh.as_ref().map_or(1, |weigh| weigh(&entry.item)), most)
            .for_each(move |outcome: ItemOutcome<T, Refusal<E>>| {
                let reply = lock(&replies).remove(&outcome.index);
                if let (Some(reply), Some(result)) = (reply, own_result(outcome.result)) {
                    let _is_awaited = reply.send(result);
                }
                ready(())
            });
        Box::pin(async move {
            // It ends when the queue is closed. Its outcomes were sent.
            let _ended = run.await;
        })
    }
}

/// Makes one call for the items with callers that still wait. Drops it if none of them waits any longer.
async fn call_for<I, T, E, F, Fut>(
    function: Arc<F>,
    entries: Vec<Entry<I>>,
) -> Result<Vec<Result<T, Refusal<E>>>, Refusal<E>>
where
    F: Fn(Vec<I>) -> Fut,
    Fut: Future<Output = Result<Vec<Result<T, E>>, E>>,
{
    let (mut items, mut callers, mut places) = (Vec::new(), Vec::new(), Vec::with_capacity(entries.len()));
    for Entry { item, caller } in entries {
        let waits = !caller.is_cancelled();
        places.push(waits);
        if waits {
            items.push(item);
            callers.push(caller);
        }
    }
    let count = items.len();
    if count == 0 {
        return Ok(places.iter().map(|_| Err(Refusal::Left)).collect());
    }
    let all_left = join_all(callers.iter().map(CancellationToken::cancelled));
    let Either::Left((answer, _)) = select(pin!(function(items)), pin!(all_left)).await else {
        return Ok(places.iter().map(|_| Err(Refusal::Left)).collect());
    };
    let results = answer.map_err(Refusal::Error)?;
    if results.len() != count {
        let (found, expected) = (Count(results.len(), "result"), Count(count, "item"));
        let fault = || Refusal::Fault(format!("the call for a batch of {expected} returned {found}"));
        return Ok(places.iter().map(|_| Err(fault())).collect());
    }
    let mut results = results.into_iter().map(|result| result.map_err(Refusal::Error));
    let result = |waits: bool| if waits { results.next() } else { None };
    Ok(places.into_iter().map(result).map(|result| result.unwrap_or(Err(Refusal::Left))).collect())
}

/// Returns the result for the caller of an item, unless the caller does not wait any more.
fn own_result<T, E>(result: Result<T, ItemError<Refusal<E>>>) -> Option<Result<T, ItemError<E>>> {
    Some(match result {
        Ok(output) => Ok(output),
        Err(ItemError::Failed { error: Refusal::Error(error), attempts }) => {
            Err(ItemError::Failed { error, attempts })
        }
        Err(ItemError::Failed { error: Refusal::Left, .. }) => return None,
        Err(ItemError::Failed { error: Refusal::Fault(message), attempts }) => {
            Err(ItemError::Faulted { message, attempts })
        }
        Err(ItemError::TimedOut { limit, scope, attempts }) => {
            Err(ItemError::TimedOut { limit, scope, attempts })
        }
        Err(ItemError::Panicked { message, attempts }) => Err(ItemError::Panicked { message, attempts }),
        Err(ItemError::Faulted { message, attempts }) => Err(ItemError::Faulted { message, attempts }),
    })
}

impl<I> Clone for Options<I> {
    fn clone(&self) -> Self {
        Self { wait: self.wait, weight: self.weight.clone() }
    }
}

impl<I, T, E> Clone for Batcher<I, T, E> {
    fn clone(&self) -> Self {
        let (run, options, queue) = (Arc::clone(&self.run), self.options.clone(), Arc::clone(&self.queue));
        Self { run, options, queue }
    }
}

impl<I, T, E> fmt::Debug for Batcher<I, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").field("wait", &self.options.wait).finish_non_exhaustive()
    }
}
