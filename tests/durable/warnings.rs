//! The warnings in the log.

use std::fmt::Debug;
use std::sync::{Arc, LazyLock, Mutex};

use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

/// A layer that remembers every warning, its message before its other fields.
#[derive(Debug, Clone, Default)]
pub(crate) struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Records the warnings of this thread.
    pub(crate) fn listen() -> (Self, DefaultGuard) {
        // With only one subscriber in the process, the thread that first reaches an event decides if it is enabled, and
        // `tracing` caches the answer for all threads. That may be the thread of another test.
        static COMPANY: LazyLock<[Dispatch; 2]> =
            LazyLock::new(|| [(); 2].map(|()| Dispatch::new(Registry::default())));
        LazyLock::force(&COMPANY);
        let warnings = Self::default();
        let guard = tracing::subscriber::set_default(Registry::default().with(warnings.clone()));
        (warnings, guard)
    }

    /// The number of warnings since the last call, all of which must contain this text.
    pub(crate) fn count(&self, what: &str) -> usize {
        let warnings = std::mem::take(&mut *self.0.lock().unwrap());
        assert!(warnings.iter().all(|text| text.contains(what)), "{what}: {warnings:?}");
        warnings.len()
    }
}

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        if *event.metadata().level() == Level::WARN {
            let mut text = Text::default();
            event.record(&mut text);
            self.0.lock().unwrap().push(text.0);
        }
    }
}

#[derive(Debug, Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let field = format!("{}={value:?} ", field.name());
        self.0.insert_str(if field.starts_with("message=") { 0 } else { self.0.len() }, &field);
    }
}
