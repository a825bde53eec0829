//! Calls of one kind that arrive at the same time share a statement.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use super::calls::{Call, Calls, is_transient};
use super::link::{Link, with_link};
use crate::lock::lock;
use crate::store::fault::Fault;
use crate::store::{MAX_BYTES, StoreError};

/// The answer of a call.
pub(super) type Answered<O> = Result<<O as Operation>::Answer, StoreError>;

/// A call that can be grouped with others of its kind.
pub(super) trait Operation: Send + Sync + 'static {
    type Answer: Send + 'static;

    const CALL: Call;

    /// The maximum number of groups that run at once.
    const GROUPS: usize;

    /// The maximum number of calls of a group.
    const MAX_GROUP: usize;

    /// Returns how many bytes it sends.
    fn bytes(&self) -> usize;

    /// Executes the whole group, or nothing if the database fails. The answers are in the order of the calls, and are those
    /// of one call after another.
    fn execute(
        link: &mut Link,
        group: &[Arc<Self>],
    ) -> impl Future<Output = Result<Vec<Answered<Self>>, Fault>> + Send;
}

/// The calls of one kind that wait for a statement.
pub(super) struct Grouped<O: Operation> {
    queue: Arc<Mutex<Queue<O>>>,
}

struct Queue<O: Operation> {
    waiting: VecDeque<Waiting<O>>,
    /// The number of groups that run.
    groups: usize,
}

struct Waiting<O: Operation> {
    operation: Arc<O>,
    reply: oneshot::Sender<Answered<O>>,
}

impl<O: Operation> Clone for Grouped<O> {
    fn clone(&self) -> Self {
        Self { queue: Arc::clone(&self.queue) }
    }
}

impl<O: Operation> Default for Grouped<O> {
    fn default() -> Self {
        Self { queue: Arc::new(Mutex::new(Queue { waiting: VecDeque::new(), groups: 0 })) }
    }
}

impl<O: Operation> Grouped<O> {
    /// Makes the call, alone or with others that wait.
    pub(super) async fn call(&self, calls: &Calls, operation: O) -> Answered<O> {
        let operation = Arc::new(operation);
        loop {
            if let Ok(answered) = self.ask(calls, Arc::clone(&operation)).await {
                return answered;
            }
            // The runtime of the group was shut down, and it may be this one.
            tokio::task::yield_now().await;
        }
    }

    /// Queues the call. Each group runs in a task of its own, so that it continues whether or not a caller is polled.
    fn ask(&self, calls: &Calls, operation: Arc<O>) -> oneshot::Receiver<Answered<O>> {
        let (reply, answered) = oneshot::channel();
        let mut queue = lock(&self.queue);
        queue.waiting.push_back(Waiting { operation, reply });
        if queue.groups < O::GROUPS {
            queue.groups += 1;
            drop(queue);
            let working = Working { grouped: self.clone(), has_ended: false };
            tokio::spawn(working.run(calls.clone()));
        }
        answered
    }
}

/// Runs groups until no call waits.
struct Working<O: Operation> {
    grouped: Grouped<O>,
    has_ended: bool,
}

impl<O: Operation> Working<O> {
    async fn run(mut self, calls: Calls) {
        while let Some(group) = self.next_group() {
            write(&calls, group).await;
        }
    }

    /// Returns the next group. If there is none, this worker no longer counts.
    fn next_group(&mut self) -> Option<Vec<Waiting<O>>> {
        let mut queue = lock(&self.grouped.queue);
        let (mut bytes, mut group) = (0, Vec::new());
        while group.len() < O::MAX_GROUP && bytes < MAX_BYTES {
            let Some(waiting) = queue.waiting.pop_front() else { break };
            // A call that was dropped is not executed.
            if !waiting.reply.is_closed() {
                bytes += waiting.operation.bytes();
                group.push(waiting);
            }
        }
        if group.is_empty() {
            queue.groups -= 1;
            self.has_ended = true;
            return None;
        }
        Some(group)
    }
}

/// A task that is dropped with its runtime leaves the waiting calls to their callers, which queue them again.
impl<O: Operation> Drop for Working<O> {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let mut queue = lock(&self.grouped.queue);
        queue.groups -= 1;
        let left = mem::take(&mut queue.waiting);
        drop(queue);
        drop(left);
    }
}

async fn write<O: Operation>(calls: &Calls, group: Vec<Waiting<O>>) {
    let (operations, replies): (Vec<Arc<O>>, Vec<_>) =
        group.into_iter().map(|waiting| (waiting.operation, waiting.reply)).unzip();
    let all = operations.as_slice();
    let fault = match calls.try_run(O::CALL, with_link!(link => O::execute(&mut link, all))).await {
        Ok(answers) => {
            for (reply, answer) in replies.into_iter().zip(answers) {
                let _caller_may_have_gone = reply.send(answer);
            }
            return;
        }
        Err(fault) => fault,
    };
    let is_alone = operations.len() == 1;
    if is_alone || is_transient(&fault) {
        let text = fault.to_string();
        let mut fault = Some(fault);
        for reply in replies {
            // All calls fail alike; the first one gets the error itself.
            let error = fault.take().map(|fault| fault.into_store_error(O::CALL.doing));
            let _caller_may_have_gone = reply.send(Err(error.unwrap_or_else(|| StoreError::Database {
                doing: O::CALL.doing,
                error: text.clone().into(),
            })));
        }
        return;
    }
    // One of the calls causes the failure, and must not fail the others.
    for (operation, reply) in operations.into_iter().zip(replies) {
        let alone = &[operation];
        let answered = calls.run(O::CALL, with_link!(link => O::execute(&mut link, alone))).await;
        let _caller_may_have_gone = reply.send(answered.and_then(|mut answers| match answers.pop() {
            Some(answer) => answer,
            None => Err(StoreError::Corrupt("the database returned no row for a call".to_owned())),
        }));
    }
}
