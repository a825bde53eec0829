//! `GET /metrics`: the counts and durations of all maps and jobs, in the text format of Prometheus.
//!
//! The exporter has no listener of its own here. So `/metrics` has the limits and the checks of every other path, and also
//! the one of `Host`: Prometheus sends the name of its target there. If the name is not an address, the service needs it as
//! `--host NAME`.
//!
//! All maps share a label, and so do all jobs. With the number of a job as its label, each job would add series for ever.

use std::time::Duration;

use async_map_task::MetricsObserver;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::{MissedTickBehavior, interval};

/// The upper bounds of the buckets for durations, in seconds. A usual answer takes milliseconds. An attempt has 2 s, and an
/// item with all its attempts 30 s.
pub(crate) const BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

/// The content type of the text format.
pub(crate) const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The interval at which durations are counted into the buckets. Until then, each of them is kept, in 16 bytes.
pub(crate) const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

pub(crate) struct Metrics {
    handle: PrometheusHandle,
    /// Observes the runs of `/map`.
    pub(crate) maps: MetricsObserver,
    /// Observes the runs of jobs.
    pub(crate) jobs: MetricsObserver,
}

impl Metrics {
    /// Installs the recorder of this process, and then registers the metrics.
    pub(crate) fn install() -> Result<Self, BuildError> {
        let durations = Matcher::Suffix(String::from("_seconds"));
        let handle =
            PrometheusBuilder::new().set_buckets_for_metric(durations, &BUCKETS)?.install_recorder()?;
        Ok(Self { handle, maps: MetricsObserver::for_task("map"), jobs: MetricsObserver::for_task("job") })
    }

    /// Returns all metrics.
    pub(crate) fn text(&self) -> String {
        self.handle.render()
    }

    /// Counts the durations into their buckets at intervals, for ever. `text` does it as well, but perhaps nobody asks.
    pub(crate) async fn upkeep(&self, every: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.handle.run_upkeep();
        }
    }
}
