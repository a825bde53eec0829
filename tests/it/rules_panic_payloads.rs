//! Rule 16: a panic with a payload that panics when it is dropped affects its item and nothing else.

use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};

use async_map_task::{AsyncMapTask, ItemError};
use futures::{StreamExt, stream};
use tokio::task::yield_now;

use crate::support::{Gauge, check_account, lenient, millis, secs, workers};

/// The payload of a panic. Its destructor panics with a payload of the same kind.
struct Payload;

impl Drop for Payload {
    fn drop(&mut self) {
        resume_unwind(Box::new(Self));
    }
}

/// Panics with a [`Payload`] when it is dropped.
struct PanicsWithPayload;

impl Drop for PanicsWithPayload {
    fn drop(&mut self) {
        resume_unwind(Box::new(Payload));
    }
}

/// The place in the map function that panics.
#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    Call,
    Poll,
    Drop,
}

fn task() -> AsyncMapTask {
    lenient().retries(1).retry_delay(secs(0)).concurrency(3).build().unwrap()
}

async fn attempt(n: u32, at: At) -> Result<u32, String> {
    yield_now().await;
    if n == 3 && at == At::Poll {
        resume_unwind(Box::new(Payload));
    }
    let _guard = (n == 3 && at == At::Drop).then(|| PanicsWithPayload);
    Ok(n)
}

fn call(n: u32, at: At) -> impl Future<Output = Result<u32, String>> {
    if n == 3 && at == At::Call {
        resume_unwind(Box::new(Payload));
    }
    attempt(n, at)
}

#[tokio::test]
async fn rule_16_a_panicking_payload_fails_its_item() {
    for parallel in [false, true] {
        for at in [At::Call, At::Poll, At::Drop] {
            let run = task().over(0..20).map(move |n| call(n, at));
            let result = if parallel { run.parallel().await } else { run.await }.unwrap();
            check_account(&result);
            assert_eq!((result.successes(), result.failures()), (19, 1), "parallel: {parallel} {at:?}");
            let is_panic = matches!(&result.errors[&3], ItemError::Panicked { attempts: 1, .. });
            assert!(is_panic, "parallel: {parallel} {at:?}: {:?}", result.errors);
        }
    }
}

#[tokio::test]
async fn rule_16_a_panicking_payload_of_a_blocking_function() {
    for parallel in [false, true] {
        let run = task().over(0..20).map_blocking(|n| {
            if n == 3 {
                resume_unwind(Box::new(Payload));
            }
            Ok::<_, String>(n)
        });
        let result = if parallel { run.parallel().await } else { run.await };
        assert_eq!(result.unwrap().failures(), 1, "parallel: {parallel}");
    }
}

/// The panic of a function is dropped if its item has timed out.
#[tokio::test]
async fn rule_16_a_late_panicking_payload_has_no_effect() {
    for parallel in [false, true] {
        let (let_go, gate) = mpsc::channel::<()>();
        let gate = std::sync::Mutex::new(gate);
        let task = lenient().concurrency(1).timeout_per_attempt(millis(10)).build().unwrap();
        let run = task.over(0..2).map_blocking(move |n| {
            if n == 0 {
                gate.lock().unwrap().recv().unwrap_err();
                resume_unwind(Box::new(Payload));
            }
            Ok::<_, String>(n)
        });
        let let_go = async {
            tokio::time::sleep(millis(30)).await;
            drop(let_go);
        };
        let run = async { if parallel { run.parallel().await } else { run.await } };
        let (result, ()) = tokio::join!(run, let_go);
        let result = result.unwrap();
        assert_eq!((result.summary.timeouts, result.successes()), (1, 1), "parallel: {parallel}");
    }
}

#[tokio::test]
async fn rule_28_panicking_payloads_in_a_dropped_run() {
    for parallel in [false, true] {
        let alive = Gauge::default();
        let gauge = alive.clone();
        let run = task().over(0..9).map(move |_| {
            let guard = (PanicsWithPayload, gauge.enter());
            async move {
                let _guard = guard;
                pending::<Result<(), String>>().await
            }
        });
        let begun = async {
            while alive.ever() < 3 {
                yield_now().await;
            }
        };
        if parallel {
            drop(futures::future::select(pin!(run.parallel()), pin!(begun)).await);
        } else {
            drop(futures::future::select(pin!(run), pin!(begun)).await);
        }
        while alive.now() > 0 {
            yield_now().await;
        }
        assert_eq!(alive.ever(), 3, "parallel: {parallel}");
    }
}

/// The run has caught the caller's panic, waits for running attempts, and is dropped.
#[test]
fn rule_28_a_panicking_payload_held_by_a_dropped_run() {
    let runtime = workers(2);
    let _entered = runtime.enter();
    let (let_go, gate) = mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let (begun, has_begun) = mpsc::channel();
    let panics = Arc::new(AtomicBool::new(false));
    let source = stream::iter(0..1).chain(stream::poll_fn({
        let panics = Arc::clone(&panics);
        move |_| if panics.load(SeqCst) { resume_unwind(Box::new(Payload)) } else { Poll::Pending }
    }));
    let mut run = Box::pin(
        task()
            .over_stream(source)
            .map(move |_: u32| {
                begun.send(()).unwrap();
                // It does not return before the test releases it.
                let _closed = gate.lock().unwrap().recv_timeout(secs(20));
                pending::<Result<(), String>>()
            })
            .parallel(),
    );
    let mut cx = Context::from_waker(Waker::noop());
    assert!(run.as_mut().poll(&mut cx).is_pending());
    has_begun.recv().unwrap();
    panics.store(true, SeqCst);
    assert!(run.as_mut().poll(&mut cx).is_pending(), "an item is in the middle of a poll");
    drop(run);
    drop(let_go);
}

#[tokio::test]
async fn rule_16_the_callers_panic_keeps_its_payload() {
    let source = (0..9).inspect(|n| {
        if *n == 5 {
            resume_unwind(Box::new(5_u8));
        }
    });
    let mut run = pin!(task().over(source).map(|n| call(n, At::Poll)));
    let polled = poll_fn(|cx| {
        Poll::Ready(match catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(cx))) {
            Ok(polled) => {
                assert!(polled.is_pending());
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Err(payload) => payload,
        })
    });
    assert_eq!(polled.await.downcast_ref::<u8>(), Some(&5));
}
