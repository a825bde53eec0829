//! The orders of a handle, up to the driver that they wake.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use shuttle::future::{block_on, spawn};
use shuttle::thread;

use crate::progress::Control;
use crate::rt::world;

/// A task waits until it has seen the effect of all orders. Three threads send them. A lost wake is a deadlock.
pub(crate) fn orders_are_heard() {
    world::begin(std::time::Duration::ZERO, 0);
    let (control, reporter) = Control::new(None);
    let driver = spawn(async move {
        let (mut size, mut seen) = (0, Vec::new());
        poll_fn(|cx| {
            let signals = reporter.signals();
            signals.register(cx.waker());
            let orders = signals.raised();
            if orders.is_resized() {
                signals.acknowledge_size();
                if let Some(new) = reporter.new_concurrency().map(|(latest, _)| latest) {
                    size = new;
                    seen.push(new);
                }
            }
            match orders.is_draining() && orders.is_token() && !orders.is_paused() && size == 3 {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        assert!(seen.is_sorted(), "{seen:?}");
    });
    let give = |orders: fn(&Control)| {
        let control = Arc::clone(&control);
        thread::spawn(move || orders(&control))
    };
    let threads = [
        give(|control| (1..=3).for_each(|size| control.set_concurrency(size))),
        give(|control| {
            control.signals().pause();
            control.signals().drain();
            control.signals().resume();
        }),
        give(|control| std::task::Waker::from(Arc::clone(control.signals())).wake()),
    ];
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    block_on(driver).unwrap();
}
