//! The shared limiter.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Poll, ready};

use shuttle::future::{block_on, spawn, yield_now};
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

use crate::attempts::again;
use crate::explore::describe;
use crate::limiter::{Acquired, Limiter, Permit, Ticket};

/// The most permits that the limiter ever has.
const MOST: usize = 5;

/// The heaviest request. The limiter begins with this many permits, and has fewer at times, so that such a request runs
/// alone.
const HEAVIEST: usize = 3;

/// Several tasks acquire permits, release them and leave the queue, while the number of permits changes.
pub(crate) fn permits_come_back() {
    let draw = |most: usize| thread_rng().gen_range(1..=most);
    // The requests of each task: a weight, and a flag that makes the task leave the queue instead of waiting.
    let asked: Vec<Vec<(u32, bool)>> =
        (0..4).map(|_| (0..draw(3)).map(|_| (draw(HEAVIEST) as u32, draw(5) == 1)).collect()).collect();
    let sizes: Vec<usize> = (0..draw(4)).map(|_| thread_rng().gen_range(1..=MOST)).collect();
    describe(format!("asked (weight, leaves): {asked:?}; sizes {sizes:?}"));

    let (limiter, used) = (Limiter::new(HEAVIEST), Arc::new(AtomicUsize::new(0)));
    let tasks: Vec<_> = asked
        .into_iter()
        .map(|asked| {
            let (limiter, used) = (limiter.clone(), Arc::clone(&used));
            spawn(async move {
                for (weight, leaves) in asked {
                    if leaves {
                        leave(&limiter, weight).await;
                        continue;
                    }
                    let _permit = permit(&limiter, weight).await;
                    let in_use = used.fetch_add(weight as usize, SeqCst) + weight as usize;
                    assert!(in_use <= MOST, "{in_use} permits in use");
                    yield_now().await;
                    used.fetch_sub(weight as usize, SeqCst);
                }
            })
        })
        .collect();
    let resized = limiter.clone();
    let resizing = thread::spawn(move || {
        for size in sizes {
            resized.set_permits(size);
            thread::yield_now();
        }
    });
    tasks.into_iter().for_each(|task| block_on(task).unwrap());
    resizing.join().unwrap();
    let limiter = format!("{limiter:?}");
    assert!(limiter.contains("in_use: 0") && limiter.contains("waiting: 0"), "{limiter}");
}

async fn permit(limiter: &Limiter, weight: u32) -> Permit {
    let mut ticket: Option<Ticket> = None;
    poll_fn(|cx| {
        if let Some(ticket) = &ticket {
            return Poll::Ready(ready!(ticket.poll(cx.waker())).unwrap());
        }
        match limiter.request(weight, cx.waker()).unwrap() {
            Acquired::Now(permit) => Poll::Ready(permit),
            Acquired::Later(later) => {
                ticket = Some(later);
                Poll::Pending
            }
        }
    })
    .await
}

/// Joins the queue and leaves it later, even if the permits were granted meanwhile.
async fn leave(limiter: &Limiter, weight: u32) {
    let acquired = poll_fn(|cx| Poll::Ready(limiter.request(weight, cx.waker()))).await;
    again().await;
    drop(acquired);
}
