//! The state of one execution that is not explored itself: the clock, the budget, and the number of live tasks.
//!
//! An execution runs on one operating system thread, so a thread-local value belongs to one execution.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::Duration;

#[derive(Debug, Default)]
struct World {
    now: Duration,
    /// Each reading moves the clock by this much.
    tick: Duration,
    /// The percentage of looks at the budget that find it used up.
    exhaustion: u32,
    tasks: usize,
    waiter: Option<Waker>,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
}

fn with<R>(f: impl FnOnce(&mut World) -> R) -> R {
    WORLD.with_borrow_mut(f)
}

/// Begins an execution.
pub(crate) fn begin(tick: Duration, exhaustion: u32) {
    let start = Duration::from_secs(1);
    with(|world| *world = World { now: start, tick, exhaustion, ..World::default() });
}

/// Moves the clock by a tick and returns the time.
pub(crate) fn read_clock() -> Duration {
    with(|world| {
        world.now += world.tick;
        world.now
    })
}

/// Moves the clock forward to a time.
pub(crate) fn advance_to(time: Duration) {
    with(|world| world.now = world.now.max(time));
}

pub(crate) fn exhaustion() -> u32 {
    with(|world| world.exhaustion)
}

/// Counts a task until it is dropped.
#[derive(Debug)]
pub(crate) struct Alive(());

impl Alive {
    pub(crate) fn new() -> Self {
        with(|world| world.tasks += 1);
        Self(())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        let waiter = with(|world| {
            world.tasks -= 1;
            world.waiter.take_if(|_| world.tasks == 0)
        });
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

/// Waits until no task is left. A task that never ends is reported as a deadlock.
pub(crate) async fn until_no_task_is_left() {
    poll_fn(|cx| {
        with(|world| {
            if world.tasks == 0 {
                return Poll::Ready(());
            }
            world.waiter = Some(cx.waker().clone());
            Poll::Pending
        })
    })
    .await;
}
