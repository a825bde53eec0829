//! The request of a client: the URLs, and the settings of the job.

use std::sync::Arc;
use std::time::Duration;

use async_map_task::{AsyncMapTask, Limiter, MetricsObserver};
use reqwest::Url;
use serde::Deserialize;

use crate::reply::ApiError;

/// The maximum number of URLs of one job. With [`MAX_BODY`](crate::body::MAX_BODY) this bounds the memory of a job.
pub(crate) const MAX_ITEMS: usize = 10_000;

const MAX_URL_LENGTH: usize = 2_048;
const MAX_CONCURRENCY: usize = 256;
const MAX_RETRIES: u32 = 10;
const MAX_DELAY_MS: u64 = 60_000;

/// The fields that describe `/flaky` count only with `generate`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    urls: Option<Vec<String>>,
    /// The number of URLs of the service's own `/flaky` endpoint.
    generate: Option<usize>,
    #[serde(default)]
    delay_ms: u64,
    #[serde(default)]
    busy: f64,
    #[serde(default)]
    hang: f64,
    #[serde(default)]
    drop: f64,
    #[serde(default)]
    gone: f64,

    #[serde(default = "default_concurrency")]
    concurrency: usize,
    #[serde(default = "default_retries")]
    retries: u32,
    /// By default every failure is tolerated, so that a job processes all its URLs.
    #[serde(default)]
    min_success_ratio: f64,
}

fn default_concurrency() -> usize {
    16
}

fn default_retries() -> u32 {
    3
}

impl Order {
    /// Returns the number of URLs.
    pub(crate) fn len(&self) -> usize {
        self.generate.unwrap_or_else(|| self.urls.as_ref().map_or(0, Vec::len))
    }

    /// Returns `true` if all URLs are of the service itself.
    pub(crate) fn is_generated(&self) -> bool {
        self.urls.is_none()
    }

    /// Returns the URLs. `/flaky` is at `origin`.
    pub(crate) fn urls(&self, origin: &str) -> Result<Vec<Arc<str>>, ApiError> {
        let urls = match (&self.urls, self.generate) {
            (Some(urls), None) if urls.len() <= MAX_ITEMS => urls.iter().map(|url| parse(url)).collect(),
            (Some(urls), None) => Err(too_many("the number of urls", urls.len())),
            (None, Some(count)) if count <= MAX_ITEMS => self.generated(count, origin),
            (None, Some(count)) => Err(too_many("generate", count)),
            _ => Err(ApiError::unprocessable("exactly one of `urls` and `generate` is required")),
        }?;
        if urls.is_empty() { Err(ApiError::unprocessable("at least one URL is required")) } else { Ok(urls) }
    }

    /// Every request and every job has its own task. All of them share one limiter.
    pub(crate) fn task(
        &self,
        name: String,
        limiter: &Limiter,
        metrics: &MetricsObserver,
    ) -> Result<AsyncMapTask, ApiError> {
        check_concurrency(self.concurrency)?;
        if self.retries > MAX_RETRIES {
            return Err(refused("retries", self.retries, format!("at most {MAX_RETRIES}")));
        }
        AsyncMapTask::builder()
            .name(name)
            .concurrency(self.concurrency)
            .limiter(limiter)
            .observer(metrics.clone())
            .retries(self.retries)
            .retry_delay(Duration::from_millis(100))
            .timeout_per_attempt(Duration::from_secs(2))
            .timeout_per_item(Duration::from_secs(30))
            .run_timeout(Duration::from_secs(1_800))
            .min_success_ratio(self.min_success_ratio)
            .build()
            .map_err(ApiError::unprocessable)
    }

    fn generated(&self, count: usize, origin: &str) -> Result<Vec<Arc<str>>, ApiError> {
        let shares = [("busy", self.busy), ("hang", self.hang), ("drop", self.drop), ("gone", self.gone)];
        for (name, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                return Err(refused(name, share, "between 0 and 1"));
            }
        }
        let sum: f64 = shares.iter().map(|(_, share)| share).sum();
        if sum > 1.0 {
            return Err(refused("the sum of busy, hang, drop and gone", sum, "at most 1"));
        }
        if self.delay_ms > MAX_DELAY_MS {
            return Err(refused("delay_ms", self.delay_ms, format!("at most {MAX_DELAY_MS}")));
        }
        let shares: String = shares
            .into_iter()
            .filter(|(_, share)| *share > 0.0)
            .map(|(name, share)| format!("&{name}={share}"))
            .collect();
        let url = |item| format!("{origin}/flaky?item={item}&delay_ms={}{shares}", self.delay_ms).into();
        Ok((0..count).map(url).collect())
    }
}

pub(crate) fn check_concurrency(concurrency: usize) -> Result<(), ApiError> {
    if (1..=MAX_CONCURRENCY).contains(&concurrency) {
        Ok(())
    } else {
        Err(refused("concurrency", concurrency, format!("between 1 and {MAX_CONCURRENCY}")))
    }
}

/// Refuses a URL that could only fail in the job.
fn parse(text: &str) -> Result<Arc<str>, ApiError> {
    if text.len() > MAX_URL_LENGTH {
        return Err(refused("the length of a URL", text.len(), format!("at most {MAX_URL_LENGTH}")));
    }
    match Url::parse(text) {
        // Without TLS the example needs no certificates and stays small.
        Ok(url) if url.scheme() == "http" => Ok(String::from(url).into()),
        Ok(url) => Err(refused("the scheme of a URL", url.scheme(), "http")),
        Err(error) => Err(ApiError::unprocessable(format!("{text:?} is not a URL: {error}"))),
    }
}

fn too_many(field: &str, found: usize) -> ApiError {
    refused(field, found, format!("at most {MAX_ITEMS}"))
}

fn refused(field: &str, found: impl std::fmt::Display, allowed: impl std::fmt::Display) -> ApiError {
    ApiError::unprocessable(format!("{field} must be {allowed}, got {found}"))
}
