//! An executor with wakers that poll: waking a task polls it within that call, on that thread. So a run that wakes a task
//! while it holds a lock that the task needs would deadlock.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use async_map_task::{ItemContext, Limiter};
use futures::future::BoxFuture;
use futures::stream::{self, Stream};
use tokio::runtime::Handle;

use crate::every_end::{End, Plan};
use crate::support::{at_once, lenient, once_more, secs, workers};

struct Inline {
    future: Mutex<Option<BoxFuture<'static, ()>>>,
    is_woken: AtomicBool,
    runtime: Handle,
}

impl Wake for Inline {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, SeqCst);
        while self.is_woken.load(SeqCst) {
            // It is being polled, by this thread or by another, which polls it once more.
            let Ok(mut future) = self.future.try_lock() else { return };
            self.is_woken.store(false, SeqCst);
            let _runtime = self.runtime.enter();
            let polled = future
                .as_mut()
                .map(|future| future.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(self)))));
            if polled.is_some_and(|polled| polled.is_ready()) {
                *future = None;
            }
        }
    }
}

/// Starts a future. The channel receives its output.
fn start<T: Send + 'static>(
    runtime: &Handle,
    future: impl Future<Output = T> + Send + 'static,
) -> Receiver<T> {
    let (sender, receiver) = channel();
    let future = async move { drop(sender.send(future.await)) };
    let future: BoxFuture<'static, ()> = Box::pin(future);
    let task = Inline {
        future: Mutex::new(Some(future)),
        is_woken: AtomicBool::new(false),
        runtime: runtime.clone(),
    };
    Waker::from(Arc::new(task)).wake();
    receiver
}

const IN_TIME: Duration = Duration::from_secs(60);

/// Waits for another task, so that it is woken from another thread.
async fn elsewhere() {
    tokio::spawn(async {}).await.unwrap();
}

async fn call(cx: ItemContext, n: u64) -> Result<u64, &'static str> {
    match n % 5 {
        0 => {}
        1 if cx.attempt() == 1 => return Err("again"),
        2 => once_more().await,
        3 => return Err("no"),
        _ => elsewhere().await,
    }
    Ok(n)
}

/// A source that is pending at each second call, and is woken from another thread.
fn slow(items: u64) -> impl Stream<Item = u64> + Send {
    stream::unfold(0, move |n| async move {
        elsewhere().await;
        (n < items).then_some((n, n + 1))
    })
}

#[test]
fn rule_07_wakers_are_called_without_a_lock() {
    let runtime = workers(2);
    for end in End::all() {
        for (is_limited, has_rate) in [(false, false), (true, false), (true, true)] {
            let limiter = Limiter::new(3);
            if has_rate {
                limiter.set_rate(10_000, secs(1)).unwrap();
            }
            let task = lenient().concurrency(4).retries(1).retry_delay(secs(0));
            let task = if is_limited { task.limiter(&limiter) } else { task }.build().unwrap();
            let sink = |_| async {
                elsewhere().await;
                Ok(())
            };
            // Two runs under one limiter wake each other.
            let runs: Vec<_> = (0..2)
                .map(|_| start(runtime.handle(), Plan::new(&task, slow(40), call).sink(sink).run(end)))
                .collect();
            for run in runs {
                let report = run.recv_timeout(IN_TIME).unwrap_or_else(|_| panic!("{end:?} hangs"));
                assert_eq!((report.summary.successes, report.summary.failures), (32, 8), "{end:?}");
            }
            assert_eq!(limiter.in_use(), 0, "{end:?}");
        }
    }
}

/// A task that is dropped with its waker may use the limiter that its waker waits for.
#[test]
fn rule_07_wakers_are_dropped_without_a_lock() {
    struct Owner(Mutex<Option<Box<dyn FnOnce() + Send>>>);
    impl Wake for Owner {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for Owner {
        fn drop(&mut self) {
            if let Some(on_drop) = self.0.get_mut().unwrap().take() {
                on_drop();
            }
        }
    }
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let runtime = workers(2);
        let _runtime = runtime.enter();
        let limiter = Limiter::new(1);
        let task = at_once(2).limiter(&limiter).build().unwrap();
        // A run holds the only permit, so that the other one waits.
        let mut holder = pin!(task.run([()], |()| std::future::pending::<Result<(), String>>()));
        assert!(holder.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let mut waits = pin!(task.run([()], |()| async { Ok::<_, String>(()) }));
        for _ in 0..3 {
            let other = limiter.clone();
            let on_drop: Box<dyn FnOnce() + Send> = Box::new(move || assert_eq!(other.in_use(), 1));
            let waker = Waker::from(Arc::new(Owner(Mutex::new(Some(on_drop)))));
            let polled = waits.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
        }
        sender.send(()).unwrap();
    });
    receiver.recv_timeout(IN_TIME).expect("it waits for itself");
}
