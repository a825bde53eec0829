//! The lock of the engine's state.

use std::sync::Arc;

use shuttle::thread;

use crate::lock::{BackOff, lock, lock_with_back_off};
use crate::rt::Mutex;

/// Each thread gets the mutex in the end, and never together with another.
pub(crate) fn one_at_a_time() {
    let count = Arc::new(Mutex::new(0));
    let threads = [BackOff::Short, BackOff::Long, BackOff::Long].map(|back_off| {
        let count = Arc::clone(&count);
        thread::spawn(move || {
            for _ in 0..3 {
                let mut count = lock_with_back_off(&count, back_off);
                let before = *count;
                thread::yield_now();
                *count = before + 1;
            }
        })
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(*lock(&count), 9);
}
