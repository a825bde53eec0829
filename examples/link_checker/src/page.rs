//! One request for a page. An error states if another one may succeed.

use std::time::Duration;

use async_map_task::retry_after_header;
use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};

use crate::frontier::Link;
use crate::html;

/// The maximum number of bytes of a page that are searched for links.
const MAX_BYTES: usize = 1 << 20;

/// The time for which a host is left alone after a refusal that names no time.
const DEFAULT_HOLD: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) url: Url,
    pub(crate) status: StatusCode,
    pub(crate) links: Vec<Url>,
}

/// The message is the kind of failure in the report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    #[error("{status}")]
    Status { status: StatusCode, retry_after: Option<Duration> },
    #[error("cannot connect")]
    Connect(#[source] reqwest::Error),
    /// The connection ended before the answer was complete, or the answer is not HTTP.
    #[error("connection closed")]
    Closed(#[source] reqwest::Error),
}

impl CheckError {
    /// Returns `true` if another request may succeed. A time limit is not among these errors: the task has it.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Connect(_) | Self::Closed(_) => true,
        }
    }

    /// Returns the time for which the server asks to be left alone.
    pub(crate) fn hold(&self) -> Option<Duration> {
        match self {
            Self::Status { status: StatusCode::TOO_MANY_REQUESTS, retry_after } => {
                Some(retry_after.unwrap_or(DEFAULT_HOLD))
            }
            Self::Status { status: StatusCode::SERVICE_UNAVAILABLE, retry_after } => *retry_after,
            _ => None,
        }
    }
}

impl From<reqwest::Error> for CheckError {
    fn from(error: reqwest::Error) -> Self {
        if error.is_connect() { Self::Connect(error) } else { Self::Closed(error) }
    }
}

pub(crate) fn client() -> reqwest::Result<Client> {
    Client::builder()
        .no_proxy() // A proxy could not reach the site of the example.
        .redirect(Policy::none()) // A redirect is a link: its target is checked once, under the limit of its own host.
        .build()
}

/// # Cancel safety
///
/// Dropping the future closes the connection.
pub(crate) async fn check(client: &Client, link: Link) -> Result<Page, CheckError> {
    let response = client.get(link.url.clone()).send().await?;
    let status = response.status();
    if !status.is_success() && !status.is_redirection() {
        return Err(CheckError::Status { status, retry_after: retry_after_header(response.headers()) });
    }
    let mut page = Page { url: link.url, status, links: Vec::new() };
    if status.is_redirection() {
        page.links.extend(location(response.headers(), &page.url));
    } else if link.is_followed && is_html(response.headers()) {
        page.links = html::links(&text(response).await?, &page.url);
    }
    Ok(page)
}

fn location(headers: &HeaderMap, page: &Url) -> Option<Url> {
    page.join(headers.get(LOCATION)?.to_str().ok()?).ok()
}

fn is_html(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"))
}

async fn text(mut response: Response) -> reqwest::Result<String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_BYTES {
            bytes.truncate(MAX_BYTES);
            break;
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
