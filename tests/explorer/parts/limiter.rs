//! Shared limiters.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Poll;
use std::time::Duration;

use shuttle::future::{block_on, spawn, yield_now};
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

use crate::attempts::again;
use crate::explore::describe;
use crate::limiter::{Limiter, LimiterSet};
use crate::rt::world;

/// The most permits that a limiter ever has.
const MOST: usize = 5;

/// The heaviest request. Each limiter begins with this many permits, and the first one has fewer at times, so that such a request
/// runs alone.
const HEAVIEST: usize = 3;

/// Several tasks acquire permits of one limiter or two, release them and leave the queues, while the permits and the rate of the
/// first one change, and holds begin.
pub(crate) fn permits_come_back() {
    let draw = |most: usize| thread_rng().gen_range(1..=most);
    // The requests of each task: a weight, the limiters (1 is the first, 2 the second, 3 both), and a flag that makes the task leave
    // the queues instead of waiting.
    let request = |_| (draw(HEAVIEST) as u32, draw(3), draw(5) == 1);
    let asked: Vec<Vec<(u32, usize, bool)>> = (0..4).map(|_| (0..draw(3)).map(request).collect()).collect();
    let orders: Vec<(usize, usize)> = (0..draw(4)).map(|_| (draw(MOST), draw(4))).collect();
    let tick = Duration::from_micros([0, 1, 30][draw(3) - 1]);
    describe(format!(
        "asked (weight, limiters, leaves): {asked:?}; orders (permits or time, kind): {orders:?}; tick {tick:?}"
    ));
    world::begin(tick, 0);

    let limiters = [(); 2].map(|()| Limiter::new(HEAVIEST));
    let used = Arc::new([const { AtomicUsize::new(0) }; 2]);
    let tasks: Vec<_> = asked
        .into_iter()
        .map(|asked| {
            let (limiters, used) = (limiters.clone(), Arc::clone(&used));
            spawn(async move {
                for (weight, which, leaves) in asked {
                    let set = chosen(&limiters, which);
                    if leaves {
                        leave(&set, weight).await;
                        continue;
                    }
                    let _permit = set.acquire(weight).await.unwrap();
                    let used = || used.iter().enumerate().filter(|(at, _)| which & (1 << at) != 0);
                    for (_, used) in used() {
                        let in_use = used.fetch_add(weight as usize, SeqCst) + weight as usize;
                        assert!(in_use <= MOST, "{in_use} permits in use");
                    }
                    yield_now().await;
                    for (_, used) in used() {
                        used.fetch_sub(weight as usize, SeqCst);
                    }
                }
            })
        })
        .collect();
    let resized = limiters[0].clone();
    let resizing = thread::spawn(move || {
        for (size, kind) in orders {
            let time = Duration::from_micros(20 * size as u64);
            match kind {
                1 | 2 => resized.set_permits(size),
                3 => resized.set_rate(1, time).unwrap(),
                _ => resized.hold_back(time),
            }
            thread::yield_now();
        }
    });
    tasks.into_iter().for_each(|task| block_on(task).unwrap());
    resizing.join().unwrap();
    for limiter in &limiters {
        assert_eq!((limiter.in_use(), limiter.waiting()), (0, 0), "{limiter:?}");
    }
}

/// Returns the first limiter (1), the second one (2), or both (3).
fn chosen([first, second]: &[Limiter; 2], which: usize) -> LimiterSet {
    match which {
        1 => first.clone().into(),
        2 => second.clone().into(),
        _ => LimiterSet::from(second.clone()).and(first),
    }
}

/// Joins the queues and leaves them later, even if the permits were granted meanwhile.
async fn leave(limiters: &LimiterSet, weight: u32) {
    let acquired = poll_fn(|cx| Poll::Ready(limiters.request(weight, cx.waker()))).await;
    again().await;
    drop(acquired);
}
