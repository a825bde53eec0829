//! A flag that one task sets and another waits for.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use shuttle::sync::Mutex;

#[derive(Debug, Default)]
pub(crate) struct Flag(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    is_set: bool,
    waiter: Option<Waker>,
}

impl Flag {
    pub(crate) fn set(&self) {
        let waiter = {
            let mut state = self.0.lock().unwrap();
            state.is_set = true;
            state.waiter.take()
        };
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.lock().unwrap().is_set
    }

    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock().unwrap();
        if state.is_set {
            return Poll::Ready(());
        }
        state.waiter = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(crate) async fn wait(&self) {
        poll_fn(|cx| self.poll(cx)).await;
    }
}
