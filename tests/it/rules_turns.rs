//! Rule 9: the bound on the work of the driver in one poll.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use tokio::task::{LocalSet, yield_now};
use tokio_util::sync::CancellationToken;

use crate::support::{at_once, millis};

/// Cancels an endless run after this many polls of another task. Returns the maximum growth of `count` between two polls.
async fn widest_turn(turns: usize, count: Rc<Cell<usize>>, stop: CancellationToken) -> usize {
    let (mut widest, mut before) = (0, count.get());
    for _ in 0..turns {
        yield_now().await;
        widest = widest.max(count.get() - before);
        before = count.get();
    }
    stop.cancel();
    widest
}

#[tokio::test]
async fn rule_09_blocking_items_let_other_tasks_run() {
    let set = LocalSet::new();
    let run = async {
        for (concurrency, yields) in [(1, false), (64, false), (64, true)] {
            let (polls, stop) = (Rc::new(Cell::new(0)), CancellationToken::new());
            let other = tokio::task::spawn_local(widest_turn(20, Rc::clone(&polls), stop.clone()));
            let polls = &polls;
            let hold_up = || {
                polls.set(polls.get() + 1);
                let began = Instant::now();
                while began.elapsed() < millis(1) {}
            };
            let task = at_once(concurrency).build().unwrap();
            let run = task.run(0..1_000_000, |n| async move {
                hold_up();
                if !yields {
                    return Ok::<_, String>(n);
                }
                loop {
                    yield_now().await;
                    hold_up();
                }
            });
            run.cancellation_token(stop).await.unwrap_err();
            // The first had begun before the clock was read, two woken ones end a poll, and one was running.
            let widest = other.await.unwrap();
            assert!((1..=5).contains(&widest), "{widest} ms between two turns of another task");
        }
    };
    set.run_until(run).await;
}

#[tokio::test(start_paused = true)]
async fn rule_09_one_poll_is_enough_for_a_few_ready_items() {
    const AT_ONCE: usize = 1_024;
    const ROUNDS: usize = 20;
    // In a task, where the driver could be polled again before the items that yield.
    let run = tokio::spawn(async {
        let task = at_once(AT_ONCE).build().unwrap();
        let mut run = pin!(task.run(0..AT_ONCE * ROUNDS, |n| async move {
            yield_now().await;
            Ok::<_, String>(n)
        }));
        let mut turns = 0;
        let result = poll_fn(|cx| {
            turns += 1;
            run.as_mut().poll(cx)
        });
        (result.await.unwrap().successes(), turns)
    });
    let (successes, turns) = run.await.unwrap();
    assert_eq!(successes, AT_ONCE * ROUNDS);
    assert!(turns <= 2 * ROUNDS, "{turns} turns");
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

// The clock is paused, so that a time slice never ends early.
#[tokio::test(start_paused = true)]
async fn rule_09_a_run_that_only_waits_does_not_wake_itself() {
    // All items are polled in one poll of the run, and wait.
    let (wakes, open) = (Arc::new(Count::default()), Arc::new(AtomicBool::new(false)));
    let wakers = Rc::new(Cell::new(Vec::new()));
    let task = at_once(4).build().unwrap();
    let mut run = pin!(task.run(0..4, |n| {
        let (open, wakers) = (Arc::clone(&open), Rc::clone(&wakers));
        poll_fn(move |cx| {
            if open.load(Ordering::SeqCst) {
                return Poll::Ready(Ok::<_, String>(n));
            }
            let mut known = wakers.take();
            known.push(cx.waker().clone());
            wakers.set(known);
            Poll::Pending
        })
    }));
    let waker = Waker::from(Arc::clone(&wakes));
    let mut cx = Context::from_waker(&waker);
    assert!(run.as_mut().poll(&mut cx).is_pending());
    // A yield delivers the wake-ups that were deferred.
    yield_now().await;
    assert_eq!(wakes.0.load(Ordering::SeqCst), 0);
    let wake_all = || wakers.take().iter().for_each(Waker::wake_by_ref);
    // They are woken without a reason: once for all of them.
    wake_all();
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    assert!(run.as_mut().poll(&mut cx).is_pending());
    yield_now().await;
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    open.store(true, Ordering::SeqCst);
    wake_all();
    assert_eq!(wakes.0.load(Ordering::SeqCst), 2);
    assert!(matches!(run.as_mut().poll(&mut cx), Poll::Ready(Ok(result)) if result.successes() == 4));
}

// The clock is paused, so that a time slice never ends early.
#[tokio::test(start_paused = true)]
async fn rule_09_items_that_wake_themselves_are_polled_once() {
    let counts: Rc<[Cell<usize>; 9]> = Rc::default();
    let task = at_once(9).build().unwrap();
    let mut run = pin!(task.run(0..9, |n: usize| {
        let counts = Rc::clone(&counts);
        poll_fn(move |cx| {
            counts[n].set(counts[n].get() + 1);
            cx.waker().wake_by_ref();
            Poll::<Result<(), String>>::Pending
        })
    }));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(run.as_mut().poll(&mut cx).is_pending());
    for _ in 0..10 {
        let before: Vec<_> = counts.iter().map(Cell::get).collect();
        assert!(run.as_mut().poll(&mut cx).is_pending());
        for (count, before) in counts.iter().zip(before) {
            assert!((1..=2).contains(&(count.get() - before)));
        }
    }
}
