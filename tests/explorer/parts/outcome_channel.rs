//! The outcome channel. Its functions are private to the engine, so its files are compiled once more here.

#[allow(dead_code, unreachable_pub, clippy::duplicate_mod, reason = "a part of the library")]
#[path = "../../../src/engine/output/outcome_channel.rs"]
mod channel;
#[allow(dead_code, unreachable_pub, clippy::duplicate_mod, reason = "a part of the library")]
#[path = "../../../src/engine/output/outcome_queue.rs"]
mod outcome_queue;

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use shuttle::future::{block_on, spawn};
use shuttle::rand::{Rng, thread_rng};

use self::channel::outcome_channel;
use crate::attempts::again;
use crate::explore::describe;
use crate::flag::Flag;
use crate::outcome::{ItemOutcome, Origin};

/// One task pushes outcomes while there is room, and flushes them in groups. Another takes them: all of them, once each,
/// and in order if the channel is ordered. An ordered channel gets the last of a group first. One outcome may be missing,
/// like that of a cancelled item.
pub(crate) fn every_outcome_is_taken() {
    let draw = |most: usize| thread_rng().gen_range(0..=most);
    let (ordered, capacity, items) = (draw(1) == 1, draw(2) + 1, draw(7));
    let (group, missing) = (draw(2) + 1, ordered.then(|| draw(7)));
    describe(format!(
        "ordered {ordered}, capacity {capacity}, items {items}, group {group}, missing {missing:?}"
    ));
    let ((inlet, mut outlet), is_over) = (outcome_channel::<usize, ()>(ordered), Arc::new(Flag::default()));
    let come: Vec<usize> = (0..items).filter(|index| Some(*index) != missing).collect();

    let (inlet, ending, coming) = (Mutex::new(inlet), Arc::clone(&is_over), come.clone());
    let giver = spawn(async move {
        for group in coming.chunks(group) {
            // Behind a missing outcome nothing is taken before the end, so waiting for room would be a deadlock.
            if !group.iter().any(|index| missing.is_some_and(|missing| missing < *index)) {
                poll_fn(|cx| match inlet.lock().unwrap().has_room_for_more(capacity, cx.waker()) {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                })
                .await;
            }
            let mut group = group.to_vec();
            if ordered {
                group.reverse();
            }
            for index in group {
                inlet.lock().unwrap().push(outcome(index));
            }
            wake(inlet.lock().unwrap().flush_queue());
        }
        wake(inlet.lock().unwrap().flush_last());
        ending.set();
    });
    let taker = spawn(async move {
        let mut taken = Vec::new();
        loop {
            let next = poll_fn(|cx| match outlet.take_or_wake(cx) {
                Some(outcome) => Poll::Ready(Some(outcome)),
                None => is_over.poll(cx).map(|()| None),
            });
            // An outcome may have been pushed between the look at the channel and the end.
            match next.await.or_else(|| outlet.take()) {
                Some(outcome) => taken.push(outcome.index),
                None => break,
            }
            again().await;
        }
        taken
    });
    block_on(giver).unwrap();
    assert_eq!(block_on(taker).unwrap(), come);
}

fn wake(taker: Option<Waker>) {
    if let Some(taker) = taker {
        taker.wake();
    }
}

fn outcome(index: usize) -> ItemOutcome<usize, ()> {
    ItemOutcome {
        index,
        attempts: 1,
        elapsed: Duration::ZERO,
        origin: Origin::Ran,
        not_retried: None,
        label: None,
        result: Ok(index),
    }
}
