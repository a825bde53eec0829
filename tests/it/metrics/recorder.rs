//! A recorder that keeps the values of all metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use async_map_task::MetricsObserver;
use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};

#[derive(Debug, Default)]
pub(super) struct Values {
    counters: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    gauges: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    histograms: Mutex<BTreeMap<String, Arc<Samples>>>,
    described: Mutex<BTreeMap<String, Option<Unit>>>,
}

#[derive(Debug, Default)]
struct Samples(Mutex<Vec<f64>>);

impl HistogramFn for Samples {
    fn record(&self, value: f64) {
        self.0.lock().unwrap().push(value);
    }
}

/// A metric with its labels, as in `attempts_total{task=resize}`, without the prefix that all have.
fn name(key: &Key) -> String {
    let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
    let name = key.name().strip_prefix("async_map_task_").unwrap();
    if labels.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", labels.join(",")) }
}

impl Values {
    /// Creates an observer, and the values that it changes.
    pub(super) fn observed() -> (Self, MetricsObserver) {
        let values = Self::default();
        let observer = values.register(MetricsObserver::new);
        (values, observer)
    }

    pub(super) fn register(&self, create: impl FnOnce() -> MetricsObserver) -> MetricsObserver {
        metrics::with_local_recorder(self, create)
    }

    /// All metrics that were registered.
    pub(super) fn names(&self) -> BTreeSet<String> {
        let (counters, gauges) = (self.counters.lock().unwrap(), self.gauges.lock().unwrap());
        let histograms = self.histograms.lock().unwrap();
        counters.keys().chain(gauges.keys()).chain(histograms.keys()).cloned().collect()
    }

    /// The units of the metrics that were described.
    pub(super) fn units(&self) -> BTreeMap<String, Option<Unit>> {
        self.described.lock().unwrap().clone()
    }

    pub(super) fn count(&self, name: &str) -> usize {
        let counters = self.counters.lock().unwrap();
        usize::try_from(counters[name].load(SeqCst)).unwrap()
    }

    /// The sum of a counter over the values of its labels.
    pub(super) fn sum(&self, name: &str) -> usize {
        let counters = self.counters.lock().unwrap();
        let of_name = counters.iter().filter(|(key, _)| key.split('{').next() == Some(name));
        of_name.map(|(_, counter)| usize::try_from(counter.load(SeqCst)).unwrap()).sum()
    }

    /// The value of a gauge, which is a whole number.
    pub(super) fn gauge(&self, name: &str) -> i64 {
        let value = f64::from_bits(self.gauges.lock().unwrap()[name].load(SeqCst));
        value.to_string().parse().unwrap()
    }

    /// The gauges of runs, of attempts and of items that wait.
    pub(super) fn gauges(&self) -> [i64; 3] {
        ["runs_active", "attempts_in_flight", "items_waiting_for_retry"].map(|name| self.gauge(name))
    }

    pub(super) fn samples(&self, name: &str) -> Vec<f64> {
        self.histograms.lock().unwrap()[name].0.lock().unwrap().clone()
    }
}

impl Recorder for Values {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        self.described.lock().unwrap().insert(key.as_str().to_owned(), unit);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        self.described.lock().unwrap().insert(key.as_str().to_owned(), unit);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        self.described.lock().unwrap().insert(key.as_str().to_owned(), unit);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::clone(self.counters.lock().unwrap().entry(name(key)).or_default()))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::clone(self.gauges.lock().unwrap().entry(name(key)).or_default()))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::clone(self.histograms.lock().unwrap().entry(name(key)).or_default()))
    }
}
