//! A subscriber that records all spans and events of `tracing`.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

/// A layer that records all spans and events.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Recorded>>);

#[derive(Debug, Default)]
pub(crate) struct Recorded {
    /// In the order of their creation.
    pub(crate) spans: Vec<Seen>,
    pub(crate) events: Vec<Told>,
    /// The spans that are entered now, the innermost last, as indices into `spans`.
    pub(crate) entered: Vec<usize>,
    /// The index in `spans` of each span that is not closed yet.
    pub(crate) open: HashMap<u64, usize>,
}

#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) name: &'static str,
    pub(crate) target: String,
    pub(crate) level: Level,
    pub(crate) fields: Fields,
    pub(crate) parent: Option<usize>,
    pub(crate) enters: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) level: Level,
    pub(crate) target: String,
    pub(crate) fields: Fields,
    pub(crate) within: Option<usize>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Fields {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl Memory {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap()
    }

    /// The indices of the spans that are entered now, the innermost last.
    pub(crate) fn entered(&self) -> Vec<usize> {
        self.lock().entered.clone()
    }

    /// The innermost span that is entered now.
    pub(crate) fn current(&self) -> Seen {
        let recorded = self.lock();
        recorded.spans[*recorded.entered.last().expect("some span is entered")].clone()
    }

    pub(crate) fn spans(&self, name: &str) -> Vec<Seen> {
        self.lock().spans.iter().filter(|span| span.name == name).cloned().collect()
    }

    /// Returns the events with messages that start with this.
    pub(crate) fn events(&self, message: &str) -> Vec<Told> {
        let begins = |told: &&Told| told.fields.get("message").is_some_and(|text| text.starts_with(message));
        self.lock().events.iter().filter(begins).cloned().collect()
    }

    /// The name and the index of the span in which an event was emitted.
    pub(crate) fn place_of(&self, told: &Told) -> (&'static str, Option<String>) {
        let recorded = self.lock();
        let span = &recorded.spans[told.within.expect("no event is told outside of all spans")];
        (span.name, span.fields.get("index").map(str::to_owned))
    }

    pub(crate) fn all_closed(&self) -> bool {
        let recorded = self.lock();
        recorded.open.is_empty() && recorded.entered.is_empty()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Memory {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let parent = context.span(id).and_then(|span| span.parent().map(|parent| parent.id()));
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let metadata = attributes.metadata();
        let mut recorded = self.lock();
        let place = recorded.spans.len();
        let parent = parent.map(|parent| recorded.open[&parent.into_u64()]);
        let (name, target, level) = (metadata.name(), metadata.target().to_owned(), *metadata.level());
        recorded.spans.push(Seen { name, target, level, fields, parent, enters: 0 });
        recorded.open.insert(id.into_u64(), place);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _context: Context<'_, S>) {
        let mut recorded = self.lock();
        let place = recorded.open[&id.into_u64()];
        values.record(&mut recorded.spans[place].fields);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let within = context.event_span(event).map(|span| span.id());
        let mut recorded = self.lock();
        let within = within.map(|id| recorded.open[&id.into_u64()]);
        let (level, target) = (*event.metadata().level(), event.metadata().target().to_owned());
        recorded.events.push(Told { level, target, fields, within });
    }

    fn on_enter(&self, id: &Id, _context: Context<'_, S>) {
        let mut recorded = self.lock();
        let place = recorded.open[&id.into_u64()];
        recorded.spans[place].enters += 1;
        recorded.entered.push(place);
    }

    fn on_exit(&self, id: &Id, _context: Context<'_, S>) {
        let mut recorded = self.lock();
        let place = recorded.open[&id.into_u64()];
        assert_eq!(recorded.entered.pop(), Some(place), "spans are left in the order of a stack");
    }

    fn on_close(&self, id: Id, _context: Context<'_, S>) {
        self.lock().open.remove(&id.into_u64());
    }
}

/// Keeps two more subscribers in the process. With only one, the thread that first reaches a span or an event decides if it
/// is enabled, and `tracing` caches the answer for all threads. That may be the thread of another test.
pub(crate) fn keep_company() {
    static COMPANY: LazyLock<[Dispatch; 2]> =
        LazyLock::new(|| [(); 2].map(|()| Dispatch::new(Registry::default())));
    LazyLock::force(&COMPANY);
}

/// Records in this thread up to a level.
pub(crate) fn listen(level: LevelFilter) -> (Memory, DefaultGuard) {
    keep_company();
    let memory = Memory::default();
    let guard = tracing::subscriber::set_default(Registry::default().with(level).with(memory.clone()));
    (memory, guard)
}
