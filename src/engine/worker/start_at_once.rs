//! The fast path of most items: after a success, the worker starts the next item at once.

use super::super::items::ItemsOf;
use super::super::output::outcomes::Outcomes;
use super::super::persist::durability::Persist;
use super::super::scheduler::Scheduler;
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
    if W::Store::KEEPS || (W::Mode::PARALLEL && (slice_is_over || scheduler.must_notify_or_yield())) {
        return None;
    }
    if !scheduler.permits.is_simple() {
        return if W::Mode::PARALLEL { None } else { start_with_shared_permits(scheduler, items, slot) };
    }
    if !can_start_directly(scheduler, items) {
        return None;
    }
    let (index, item, weight) = items.pull_item(scheduler)?;
    if slot.control.held.own_permits() != weight as usize {
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

/// As [`start_at_once`], in a run with limiters or keys, if nothing waits for their permits. If these are not free for the next item,
/// it waits for them like any other.
#[inline(never)]
fn start_with_shared_permits<W: Work>(
    scheduler: &mut Scheduler,
    items: &mut ItemsOf<W>,
    slot: &mut SlotProjection<'_, W>,
) -> Option<W::Item> {
    if !scheduler.may_renew_shared() || !can_start_directly(scheduler, items) {
        return None;
    }
    let (index, item, weight) = items.pull_item(scheduler)?;
    let held = &mut slot.control.held;
    let mut is_ready = scheduler.permits.renew_shared(held, weight);
    if W::Hooks::KEYED && is_ready {
        let limiters = items.hooks.key_limiters(&item, true, scheduler.permits.later());
        is_ready = scheduler.permits.renew_key(held, limiters.ok().flatten());
    }
    if !is_ready {
        let pulled = items.keep_waiting(index, item, weight);
        scheduler.backlog.push_back(pulled);
        return None;
    }
    slot.control.job.renew(index, weight);
    slot.control.begin(scheduler, items.hooks.observer(), true, false);
    items.set_label(&mut slot.control.job, &item);
    Some(item)
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
