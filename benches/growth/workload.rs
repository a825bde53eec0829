//! The work of the items.

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::task::yield_now;

pub(crate) async fn ready(n: u64) -> Result<u64, u32> {
    black_box(Ok(n * 2))
}

pub(crate) async fn yields(n: u64) -> Result<u64, u32> {
    yield_now().await;
    black_box(Ok(n * 2))
}

/// Items that keep all places occupied: when all are, the oldest item ends as soon as another begins.
///
/// Items that yield once do not do this: a run begins 128 of them and yields, and then their places serve the next 128.
pub(crate) fn queue(items: u64, places: usize) -> impl Fn(u64) -> Queued {
    let wakers = RefCell::new(vec![None; places]);
    let queue = Rc::new(Queue { items, places: places as u64, begun: Cell::new(0), wakers });
    move |n| Queued { n, has_begun: false, queue: Rc::clone(&queue) }
}

struct Queue {
    items: u64,
    places: u64,
    begun: Cell<u64>,
    /// The waker of the item in each place.
    wakers: RefCell<Vec<Option<Waker>>>,
}

impl Queue {
    fn begin(&self) {
        let begun = self.begun.get() + 1;
        self.begun.set(begun);
        let mut wakers = self.wakers.borrow_mut();
        if begun == self.items {
            wakers.iter_mut().filter_map(Option::take).for_each(Waker::wake);
        } else if let Some(oldest) = wakers[self.place(begun)].take() {
            oldest.wake();
        }
    }

    fn is_over(&self, n: u64) -> bool {
        self.begun.get() >= self.items.min(n + self.places)
    }

    fn place(&self, n: u64) -> usize {
        (n % self.places) as usize
    }
}

/// An item of a [`queue`].
pub(crate) struct Queued {
    n: u64,
    has_begun: bool,
    queue: Rc<Queue>,
}

impl Future for Queued {
    type Output = Result<u64, u32>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.has_begun {
            self.has_begun = true;
            self.queue.begin();
        }
        let Self { n, queue, .. } = &*self;
        if queue.is_over(*n) {
            return Poll::Ready(black_box(Ok(n * 2)));
        }
        queue.wakers.borrow_mut()[queue.place(*n)] = Some(cx.waker().clone());
        Poll::Pending
    }
}
