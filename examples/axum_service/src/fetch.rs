//! Fetches a URL once. An error states if another attempt may succeed.

use std::error::Error;
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Client, ClientBuilder, Response, StatusCode};
use serde::Serialize;

use crate::internal::{self, InternalAddress, PublicOnly};
use crate::mask;

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
    #[error(transparent)]
    Internal(#[from] InternalAddress),
    #[error("{}", with_causes(.0))]
    Http(#[from] reqwest::Error),
}

impl FetchError {
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::TooLarge | Self::Internal(_) => false,
            Self::Http(error) => !error.is_builder() && !error.is_redirect() && !internal::is_cause(error),
        }
    }

    /// Returns the wait that the server asked for.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::TooLarge | Self::Internal(_) | Self::Http(_) => None,
        }
    }
}

/// The addresses that a [`Fetcher`] may connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    Public,
    Anywhere,
}

/// One client for the whole service, so that its connections are shared. It has no time limits, because the task has
/// them.
#[derive(Debug, Clone)]
pub(crate) struct Fetcher {
    client: Client,
    reach: Reach,
}

impl Fetcher {
    pub(crate) fn new(client: ClientBuilder, reach: Reach) -> reqwest::Result<Self> {
        let client = client
            .no_proxy() // A proxy would resolve the names, without the check of `PublicOnly`.
            .redirect(internal::redirects(reach == Reach::Anywhere))
            .pool_idle_timeout(Duration::from_secs(2));
        let client = match reach {
            Reach::Public => client.dns_resolver(PublicOnly),
            Reach::Anywhere => client,
        };
        Ok(Self { client: client.build()?, reach })
    }

    /// # Cancel safety
    ///
    /// Dropping the future closes the connection in the middle of the response.
    pub(crate) async fn fetch(&self, url: &str) -> Result<Fetched, FetchError> {
        let request = self.client.get(url).build()?;
        if self.reach == Reach::Public {
            internal::check_literal(request.url())?;
        }
        let mut response = self.client.execute(request).await?;
        let status = response.status();
        if !status.is_success() {
            return Err(FetchError::Status { status, retry_after: retry_after(&response) });
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
}

/// Only seconds are supported. A date is ignored.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// Returns the message of `reqwest` with its causes, which contain the reason.
fn with_causes(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    mask::text(&causes.fold(String::from("the request failed"), |text, cause| format!("{text}: {cause}")))
}
