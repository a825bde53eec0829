//! The items whose calls are being cancelled. A later attempt at one waits until that has come to its end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use crate::lock::lock;

/// The items whose calls are being cancelled, by their names.
#[derive(Debug, Clone, Default)]
pub(super) struct Cancelling {
    items: Arc<Mutex<HashMap<String, Ends>>>,
}

/// How many calls for an item are being cancelled, what tells of the last one's end, and whether an attempt waits for it.
#[derive(Debug, Default)]
struct Ends {
    count: usize,
    over: CancellationToken,
    wanted: CancellationToken,
}

impl Cancelling {
    /// Notes that a call for an item is being cancelled, until the result is dropped.
    pub(super) fn begin(&self, item: String) -> Ongoing {
        let mut items = lock(&self.items);
        let ends = items.entry(item.clone()).or_default();
        ends.count += 1;
        let wanted = ends.wanted.clone();
        drop(items);
        Ongoing { cancelling: self.clone(), item, wanted }
    }

    /// Waits until no call for an item is being cancelled.
    pub(super) async fn over(&self, item: &str) {
        loop {
            let ends = lock(&self.items).get(item).map(|ends| (ends.wanted.clone(), ends.over.clone()));
            let Some((wanted, over)) = ends else { return };
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
    /// Waits until another attempt at the item waits for the end of this.
    pub(super) async fn wanted(&self) {
        self.wanted.cancelled().await;
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        let mut items = lock(&self.cancelling.items);
        let Some(ends) = items.get_mut(&self.item) else { return };
        ends.count -= 1;
        let last = (ends.count == 0).then(|| items.remove(&self.item)).flatten();
        drop(items);
        if let Some(ends) = last {
            ends.over.cancel();
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
        assert!(cancelling.over("a").now_or_never().is_some());
        let (first, second, other) =
            (cancelling.begin("a".into()), cancelling.begin("a".into()), cancelling.begin("b".into()));
        let mut waiting = Box::pin(cancelling.over("a"));
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
