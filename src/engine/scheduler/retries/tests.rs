//! The schedule of retries, without a run.

use super::*;

fn parked(slots: &[usize]) -> RetrySchedule {
    let mut retries = RetrySchedule::default();
    slots.iter().for_each(|slot| retries.park_immediate(*slot, 1, None, 1));
    retries
}

fn take(retries: &mut RetrySchedule, admitted: usize) -> usize {
    retries.pop_immediate(admitted).unwrap().slot
}

fn given_up(slot: usize) -> GivenUp {
    GivenUp { slot, is_refused: false }
}

#[test]
fn each_immediate_retry_comes_after_a_new_item() {
    let mut retries = parked(&[7, 8]);
    assert!(!retries.is_turn_of_immediate(1), "none was admitted since");
    assert!(retries.is_turn_of_immediate(2));
    assert_eq!(take(&mut retries, 2), 7);
    assert!(!retries.is_turn_of_immediate(2), "one new item lets one retry start");
    assert!(retries.is_turn_of_immediate(3));
    assert_eq!(take(&mut retries, 3), 8);
    retries.park_immediate(8, 1, None, 3);
    assert!(!retries.is_turn_of_immediate(3));
    assert_eq!((retries.len(), retries.is_turn_of_immediate(4)), (1, true));
}

#[test]
fn retries_that_are_put_back_have_their_former_place() {
    let mut retries = parked(&[7, 8, 9]);
    let (first, second) = (retries.pop_immediate(2).unwrap(), retries.pop_immediate(3).unwrap());
    assert_eq!(retries.len(), 1);
    assert!(!retries.is_turn_of_immediate(3));
    retries.put_back(first);
    retries.put_back(second);
    assert!(retries.is_turn_of_immediate(2), "as if none had been taken");
    let order: Vec<_> = (4..7).map(|admitted| take(&mut retries, admitted)).collect();
    assert_eq!((order, retries.len()), (vec![7, 8, 9], 0));
}

#[test]
fn retries_without_a_delay_give_up_in_time_too() {
    let now = Instant::now();
    let second = std::time::Duration::from_secs(1);
    let mut retries = RetrySchedule::default();
    retries.park_immediate(7, 1, Some(now + second), 1);
    retries.park(8, 1, now, Some(now + 2 * second));
    retries.release(now);
    assert_eq!((retries.pop_given_up(now), retries.next_deadline()), (None, Some(now + second)));
    assert_eq!(retries.pop_given_up(now + second), Some(given_up(7)));
    assert_eq!(retries.pop_given_up(now + second), None);
    assert_eq!((retries.len(), retries.next_deadline()), (1, Some(now + 2 * second)));
}

#[test]
fn a_retry_that_is_put_back_late_gives_up_too() {
    let (now, second) = (Instant::now(), std::time::Duration::from_secs(1));
    let mut retries = RetrySchedule::default();
    retries.park_immediate(7, 1, Some(now + second), 1);
    let taken = retries.pop_immediate(2).unwrap();
    assert_eq!(retries.pop_given_up(now + second), None, "it is to start");
    retries.put_back(taken);
    assert_eq!(retries.next_deadline(), Some(now + second));
    assert_eq!(retries.pop_given_up(now + second), Some(given_up(7)));
}

#[test]
fn refused_retries_are_held_and_granted_in_their_order() {
    let (now, second) = (Instant::now(), std::time::Duration::from_secs(1));
    let mut retries = RetrySchedule::default();
    retries.park_refused(7, 1, now + second, None);
    retries.park_refused(8, 1, now, None);
    retries.park_refused(9, 1, now, Some(now + 3 * second));
    assert_eq!((retries.len(), retries.ready(), retries.next_deadline()), (3, 0, Some(now + 3 * second)));
    retries.set_next_grant(Some(now + second));
    assert_eq!(retries.next_deadline(), Some(now + second));
    assert!(retries.grant_first(now), "its delay is not over");
    assert!(!retries.grant_first(now));
    assert_eq!(retries.next_grant(), None, "it has to be computed again");
    assert_eq!((retries.pop_due().unwrap().slot, retries.pop_due()), (8, None));
    retries.release(now + second);
    assert_eq!((retries.pop_due().unwrap().slot, retries.len()), (7, 1));
    assert_eq!(retries.pop_given_up(now + 2 * second), None);
    assert_eq!(retries.pop_given_up(now + 3 * second), Some(GivenUp { slot: 9, is_refused: true }));
    assert_eq!((retries.len(), retries.has_refused(), retries.next_deadline()), (0, false, None));
    assert!(!retries.grant_first(now));
    retries.park_refused(6, 1, now, None);
    assert_eq!((retries.clear(), retries.len(), retries.next_deadline()), (vec![6], 0, None));
}
