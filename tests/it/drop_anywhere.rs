//! A run that is dropped, at any poll, leaves nothing behind.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use crate::model::real::{Log, drive};
use crate::model::script::{self, Case};

/// A waker whose clones can be counted: every timer, token and source that still waits holds one.
#[derive(Default)]
struct Woken(Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// Polls a run so many times and drops it. Returns `true` if it had ended before.
fn drop_at_poll(case: &Case, polls: usize) -> bool {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let log = Log::new();
        let woken = Arc::new(Woken::default());
        let token = CancellationToken::new();
        let mut ended = false;
        {
            let mut run = pin!(drive(case, &log, token.clone()));
            let waker = Waker::from(Arc::clone(&woken));
            for poll in 1..=polls {
                if let Poll::Ready(outcome) = run.as_mut().poll(&mut Context::from_waker(&waker)) {
                    ended = true;
                    drop(outcome);
                    break;
                }
                if poll < polls {
                    woken.0.notified().await;
                }
            }
        }
        log.assert_nothing_lives();
        // The runtime holds the waker of a driver that has yielded until it looks at its timers the next time.
        yield_now().await;
        assert_eq!(Arc::strong_count(&woken), 1, "something that waits has outlived its run");
        for (token, ended) in log.tokens.borrow().iter() {
            assert!(
                token.is_cancelled() || ended.get() || std::thread::panicking(),
                "an attempt was dropped and its token not cancelled"
            );
        }
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
        ended
    })
}

#[test]
fn a_run_dropped_at_any_poll_leaves_nothing() {
    let (mut dropped, mut deepest) = (0, 0);
    let mut runner = TestRunner::deterministic();
    for _ in 0..4_000 {
        let mut case = script::case().new_tree(&mut runner).unwrap().current();
        // An item that never ends would make the run wait for ever if nothing stops it.
        case.per_run.get_or_insert(1_000_000_000);
        for polls in 0.. {
            if drop_at_poll(&case, polls) {
                break;
            }
            (dropped, deepest) = (dropped + 1, deepest.max(polls));
        }
    }
    eprintln!("{dropped} runs were dropped, the deepest at its poll number {deepest}");
    assert!(dropped > 40_000 && deepest > 50, "{dropped} runs dropped, at most at poll {deepest}");
}
