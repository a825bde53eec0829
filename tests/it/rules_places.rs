//! Rules 4 and 12 for a shared limit or thread: first come, first served, and one rule for the time of an attempt.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use async_map_task::Limiter;
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep};

use crate::support::{at_once, lenient, millis, secs};

/// The driver queued with the weight of a later item than the worker did, and each gave up the other's position.
#[tokio::test(start_paused = true)]
async fn rule_04_a_new_weight_keeps_the_position_in_the_queue() {
    const ITEMS: usize = 600;
    for parallel in [false, true] {
        let limiter = Limiter::new(2);
        let is_over = Arc::new(AtomicBool::new(false));
        let (rivals, over) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&is_over));
        let count = Arc::clone(&rivals);
        let rival = at_once(4).limiter(&limiter).build().unwrap();
        let rival = rival.over((0_u64..).take_while(move |_| !over.load(SeqCst))).map(move |n| {
            count.fetch_add(1, SeqCst);
            async move {
                sleep(millis(1)).await;
                Ok::<_, String>(n)
            }
        });
        let rival = rival.spawn();
        let run = at_once(3).limiter(&limiter).build().unwrap();
        let run = run.over(0..ITEMS).map(|n| async move {
            sleep(millis(1)).await;
            Ok::<_, String>(n)
        });
        let run = run.weight(|n| 2 - (n % 2) as u32);
        let began = Instant::now();
        let result = if parallel { run.parallel().await } else { run.await };
        let took = began.elapsed();
        assert_eq!(result.unwrap().successes(), ITEMS);
        assert!(format!("{limiter:?}").contains("given_up: 0"), "{parallel}: {limiter:?}");
        // The two take turns, and each millisecond has two permits.
        let turns = rivals.load(SeqCst);
        assert!((ITEMS / 4..=ITEMS * 2).contains(&turns), "{parallel}: {turns} attempts of the rival");
        let ideal = (ITEMS + ITEMS / 2 + turns) as u64 / 2;
        assert!(took <= millis(ideal * 5 / 4), "{parallel}: {took:?}, with all permits in use {ideal} ms");
        is_over.store(true, SeqCst);
        rival.await.unwrap();
        eprintln!(
            "{ITEMS} items of weights 2 and 1 beside {turns} of a rival: {took:?}, parallel: {parallel}"
        );
    }
}

/// One rule for items in one task and on several cores: the limit of an attempt that blocks its thread in its first
/// poll runs from the end of that poll; later polls count.
#[test]
fn rule_12_a_limit_begins_after_a_blocking_first_poll() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    for (in_first_poll, successes) in [(true, 4), (false, 0)] {
        for parallel in [false, true] {
            let task = lenient().concurrency(4).timeout_per_attempt(millis(20)).build().unwrap();
            let run = task.over(0..4).map(move |n| async move {
                if !in_first_poll {
                    sleep(millis(1)).await;
                }
                let begun = std::time::Instant::now();
                while begun.elapsed() < millis(60) {
                    spin_loop();
                }
                // After a later poll the limit ends the attempt now, at the latest.
                sleep(if in_first_poll { millis(1) } else { secs(5) }).await;
                Ok::<_, String>(n)
            });
            let result = runtime.block_on(async { if parallel { run.parallel().await } else { run.await } });
            let result = result.unwrap();
            let timeouts = result.summary.timeouts;
            let what =
                format!("in the first poll: {in_first_poll}, parallel: {parallel}: {}", result.summary);
            assert_eq!((result.successes(), timeouts), (successes, 4 - successes), "{what}");
            assert!(result.summary.elapsed < secs(10), "{what}");
        }
    }
}
