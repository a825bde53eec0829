//! Fetches a URL once. An error states if another attempt may succeed.

use std::error::Error;
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use serde::Serialize;

/// The maximum number of bytes of a response that are read.
const MAX_BODY: usize = 1 << 20;

/// The maximum wait that a server may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Fetched {
    pub(crate) status: u16,
    pub(crate) bytes: usize,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("the server returned the status {status}")]
    Status { status: StatusCode, retry_after: Option<Duration> },
    #[error("the response has more than {MAX_BODY} bytes")]
    TooLarge,
    #[error("{}", with_causes(.0))]
    Http(#[from] reqwest::Error),
}

impl FetchError {
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::TooLarge => false,
            Self::Http(error) => !error.is_builder() && !error.is_redirect(),
        }
    }

    /// Returns the wait that the server asked for.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::TooLarge | Self::Http(_) => None,
        }
    }
}

/// One client for the whole service, so that its connections are shared. It has no time limits, because the task has
/// them.
pub(crate) fn client() -> reqwest::Result<Client> {
    Client::builder()
        .no_proxy() // The service asks itself, too, and that no proxy could do.
        .redirect(Policy::limited(3))
        .pool_idle_timeout(Duration::from_secs(2))
        .build()
}

/// # Cancel safety
///
/// Dropping the future closes the connection in the middle of the response.
pub(crate) async fn fetch(client: &Client, url: &str) -> Result<Fetched, FetchError> {
    let mut response = client.get(url).send().await?;
    let status = response.status();
    if !status.is_success() {
        // Only seconds are supported. A date is ignored.
        let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = seconds.map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
        return Err(FetchError::Status { status, retry_after });
    }
    let mut bytes = 0;
    while let Some(chunk) = response.chunk().await? {
        bytes += chunk.len();
        if bytes > MAX_BODY {
            return Err(FetchError::TooLarge);
        }
    }
    Ok(Fetched { status: status.as_u16(), bytes })
}

/// Returns the message of `reqwest` with its causes, which contain the reason.
fn with_causes(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(String::from("the request failed"), |text, cause| format!("{text}: {cause}"))
}
