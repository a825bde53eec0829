//! The fast path of most items: after a success, the worker starts the next item at once.

use super::super::items::ItemsOf;
use super::super::output::outcomes::Outcomes;
use super::super::persist::durability::Persist;
use super::super::scheduler::Scheduler;
use super::super::scheduler::permits::HeldPermits;
use super::super::user::hooks::Hooks;
use super::super::{Mode, Work};
use super::attempt_slot::SlotProjection;

/// Prepares an attempt at the next new item, and returns the item, if no event and no request has to be handled before it.
/// Most items take this path, which skips the rare checks.
#[inline(always)]
pub(in super::super) fn start_at_once<W: Work>(
    scheduler: &mut Scheduler,
    items: &mut ItemsOf<W>,
    slot: &mut SlotProjection<'_, W>,
    slice_is_over: bool,
) -> Option<W::Item> {
    let is_simple = scheduler.permits.is_simple();
    if W::Store::KEEPS
        || !(is_simple || (!W::Mode::PARALLEL && scheduler.may_renew_shared()))
        || !can_start_directly(scheduler, items)
        || (W::Mode::PARALLEL && (slice_is_over || scheduler.must_notify_or_yield()))
    {
        return None;
    }
    let (index, item, weight) = items.pull_item(scheduler)?;
    let held = &mut slot.control.held;
    let is_ready = if is_simple {
        held.own_permits() == weight as usize
    } else {
        !W::Mode::PARALLEL && renew_shared(scheduler, items, held, &item, weight)
    };
    if !is_ready {
        let pulled = items.keep_waiting(index, item, weight);
        scheduler.backlog.push_back(pulled);
        return None;
    }
    slot.control.job.renew(index, weight);
    slot.control.begin(scheduler, items.hooks.observer(), true, W::Mode::PARALLEL);
    items.set_label(&mut slot.control.job, &item);
    scheduler.report_at_once(W::Mode::PARALLEL);
    Some(item)
}

/// Makes the permits of limiters and keys that a worker holds fit for its next item. Returns `false` if they are not free: the item then
/// waits for them like any other.
#[inline(never)]
fn renew_shared<W: Work>(
    scheduler: &mut Scheduler,
    items: &ItemsOf<W>,
    held: &mut HeldPermits,
    item: &W::Item,
    weight: u32,
) -> bool {
    if !scheduler.permits.renew_shared(held, weight) {
        return false;
    }
    if !W::Hooks::KEYED {
        return true;
    }
    let limiters = items.hooks.key_limiters(item, true, scheduler.permits.later());
    scheduler.permits.renew_key(held, limiters.ok().flatten())
}

/// Returns `true` if free permits may go to a new item directly. Then there is no signal, no stop, no waiting attempt and no
/// full window that `next_item` has to handle.
#[inline(always)]
fn can_start_directly<W: Work>(scheduler: &Scheduler, items: &ItemsOf<W>) -> bool {
    scheduler.signals.raised().is_none()
        && scheduler.stop.is_none()
        && (W::Mode::PARALLEL || scheduler.budget.is_left())
        && (scheduler.retries.ready() | scheduler.backlog.len() | scheduler.assigned.len()) == 0
        && scheduler.window_without_keys().is_some_and(|window| {
            items.outcomes.has_room(scheduler.permits.capacity(), &scheduler.driver)
                && items.outcomes.is_within_window(window, &scheduler.driver)
        })
}
