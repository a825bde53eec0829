//! A run that is dropped, at any poll, leaves nothing behind.

use std::pin::pin;
use std::sync::Arc;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use crate::model::real::{Log, drive};
use crate::model::script::{self, Case};
use crate::support::{Woken, paused, poll_times};

/// Polls a run this many times and drops it. Returns `true` if it had ended before.
fn drop_at_poll(case: &Case, polls: usize) -> bool {
    paused().block_on(async {
        let log = Log::new();
        let woken = Arc::new(Woken::default());
        let token = CancellationToken::new();
        let ended = {
            let run = pin!(drive(case, &log, token.clone()));
            poll_times(run, polls, &woken).await.is_some()
        };
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
