//! Tracks the items with calls that are being cancelled. A later attempt at such an item waits until that is over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use crate::lock::lock;

/// The items with calls that are being cancelled, by their names.
#[derive(Debug, Clone, Default)]
pub(super) struct Cancelling {
    items: Arc<Mutex<HashMap<String, Cancellations>>>,
}

/// The calls for one item that are being cancelled.
#[derive(Debug, Default)]
struct Cancellations {
    count: usize,
    /// Cancelled once the last of them is over.
    over: CancellationToken,
    /// Cancelled once an attempt waits for their end.
    wanted: CancellationToken,
}

impl Cancelling {
    /// Records that a call for an item is being cancelled, until the returned value is dropped.
    pub(super) fn begin(&self, item: String) -> Ongoing {
        let mut items = lock(&self.items);
        let entry = items.entry(item.clone()).or_default();
        entry.count += 1;
        let wanted = entry.wanted.clone();
        drop(items);
        Ongoing { cancelling: self.clone(), item, wanted }
    }

    /// Waits until no call for an item is being cancelled.
    pub(super) async fn wait_for(&self, item: &str) {
        loop {
            let entry = lock(&self.items).get(item).map(|entry| (entry.wanted.clone(), entry.over.clone()));
            let Some((wanted, over)) = entry else { return };
            wanted.cancel();
            over.cancelled().await;
        }
    }
}

/// A call that is being cancelled.
#[derive(Debug)]
pub(super) struct Ongoing {
    cancelling: Cancelling,
    item: String,
    wanted: CancellationToken,
}

impl Ongoing {
    /// Waits until another attempt at the item waits for the end of this cancellation.
    pub(super) async fn wanted(&self) {
        self.wanted.cancelled().await;
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        let mut items = lock(&self.cancelling.items);
        let Some(entry) = items.get_mut(&self.item) else { return };
        entry.count -= 1;
        let last = (entry.count == 0).then(|| items.remove(&self.item)).flatten();
        drop(items);
        if let Some(entry) = last {
            entry.over.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_later_attempt_waits_for_the_last_of_them() {
        let cancelling = Cancelling::default();
        assert!(cancelling.wait_for("a").now_or_never().is_some());
        let (first, second, other) =
            (cancelling.begin("a".into()), cancelling.begin("a".into()), cancelling.begin("b".into()));
        let mut waiting = Box::pin(cancelling.wait_for("a"));
        assert!(second.wanted().now_or_never().is_none());
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(first.wanted().now_or_never().is_some() && second.wanted().now_or_never().is_some());
        assert!(other.wanted().now_or_never().is_none());
        drop(first);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(second);
        assert!(waiting.as_mut().now_or_never().is_some());
        drop(other);
        assert!(lock(&cancelling.items).is_empty());
    }
}
