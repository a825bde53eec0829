//! A server that may be away for a while: the ingress, and the admin API.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes};
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::{Instant, sleep};

use super::reply::{Fault, Reply, beginning, whole};
use crate::error::{BoxError, ConfigError};
use crate::lock::lock;
use crate::retry::RetryPolicy;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A machine that is gone without a word is noticed after this and a few probes of the same distance.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 3;

/// A try that lasted for longer had reached the server and waited for its answer, so the server is away only since then.
const REACHED: Duration = Duration::from_secs(10);

/// The waits between tries. Their number is bounded by the time.
const RETRY: RetryPolicy = RetryPolicy {
    retries: u32::MAX,
    delay: Duration::from_millis(50),
    max_delay: Duration::from_secs(5),
    multiplier: 2.0,
    jitter: 0.5,
};

/// The ingress or the admin API.
#[derive(Debug)]
pub(super) struct Server {
    /// The setting that names it.
    name: &'static str,
    /// Its URL, without a slash at the end.
    base: String,
    authorization: Option<HeaderValue>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    retry_time: Duration,
    message_limit: usize,
    /// Since when nobody has been answered: one word in the log for all calls.
    outage: Mutex<Option<Instant>>,
}

/// What became of one try.
enum Try {
    Ended(Result<Reply, Fault>),
    Failed { is_sent: bool, error: BoxError },
}

impl Server {
    pub(super) fn new(
        name: &'static str,
        url: &str,
        authorization: Option<HeaderValue>,
        retry_time: Duration,
        message_limit: usize,
    ) -> Result<Self, ConfigError> {
        let is_tls = is_tls(url).ok_or_else(|| {
            // A password is nothing for a log.
            let found = if url.contains('@') { "a URL with a user" } else { url };
            ConfigError::new(
                name,
                format_args!("`{}`", found.escape_debug()),
                "http:// or https://, and a host",
            )
        })?;
        let connector =
            connector(is_tls).map_err(|error| ConfigError::new(name, error, "certificates to trust"))?;
        Ok(Self {
            name,
            base: url.trim_end_matches('/').to_owned(),
            authorization,
            client: Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector),
            retry_time,
            message_limit,
            outage: Mutex::new(None),
        })
    }

    pub(super) fn uri(&self, path: &str) -> Result<Uri, ConfigError> {
        let uri = format!("{}{path}", self.base);
        uri.parse().map_err(|error| ConfigError::new(self.name, format_args!("`{uri}`: {error}"), "a URL"))
    }

    pub(super) fn request(&self, method: Method, uri: Uri, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        request
    }

    /// Until when a request is sent again that is sent now and fails at once.
    pub(super) fn deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(self.retry_time)
    }

    /// Sends a request that may be sent more than once, until it is answered, for as long as the server may be away and
    /// no longer than until no further try would fit before the deadline.
    pub(super) async fn reach(
        &self,
        request: &Request<Full<Bytes>>,
        deadline: Option<Instant>,
    ) -> Result<Reply, Fault> {
        let (mut first_failure, mut tries, mut is_sent) = (None, 0_u32, false);
        loop {
            let began = Instant::now();
            let (was_sent, error) = match self.attempt(request.clone()).await {
                Try::Ended(ended) => {
                    self.is_back();
                    return ended;
                }
                Try::Failed { is_sent, error } => (is_sent, error),
            };
            let now = Instant::now();
            if now - began > REACHED {
                (first_failure, tries) = (None, 0);
            }
            is_sent |= was_sent;
            tries = tries.saturating_add(1);
            let since = now - *first_failure.get_or_insert(now);
            let wait = RETRY.wait_before(tries);
            if since + wait > self.retry_time || deadline.is_some_and(|deadline| now + wait >= deadline) {
                return Err(Fault::Unreachable { since, tries, is_sent, source: error });
            }
            self.is_away(&error);
            sleep(wait).await;
        }
    }

    async fn attempt(&self, request: Request<Full<Bytes>>) -> Try {
        let reply = match self.client.request(request).await {
            Ok(reply) => reply,
            Err(error) => {
                return Try::Failed { is_sent: !error.is_connect(), error: whole(&error).into() };
            }
        };
        let (head, body) = reply.into_parts();
        let (announced, limit) = (body.size_hint().lower(), self.message_limit as u64);
        let body = match Limited::new(body, self.message_limit).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Try::Ended(Err(Fault::TooLarge { size: announced.max(limit + 1), limit }));
            }
            Err(error) => return Try::Failed { is_sent: true, error: whole(error.as_ref()).into() },
        };
        let reply = Reply { status: head.status, headers: head.headers, body };
        if reply.is_transient() {
            let error = format!("status {}: {}", reply.status.as_u16(), beginning(&reply.body));
            return Try::Failed { is_sent: true, error: error.into() };
        }
        Try::Ended(Ok(reply))
    }

    fn is_away(&self, error: &BoxError) {
        let mut outage = lock(&self.outage);
        if outage.is_none() {
            *outage = Some(Instant::now());
            tracing::warn!(%error, retry_time = ?self.retry_time, "the {} is away; its calls are sent again", self.name);
        }
    }

    fn is_back(&self) {
        if let Some(since) = lock(&self.outage).take() {
            tracing::info!(away = ?since.elapsed(), "the {} is back", self.name);
        }
    }
}

/// Whether a URL asks for TLS; nothing where it is no URL of a server.
fn is_tls(url: &str) -> Option<bool> {
    let uri: Uri = url.parse().ok()?;
    let authority = uri.authority()?;
    let has_port = authority.as_str() != authority.host();
    if authority.host().is_empty()
        || has_port != authority.port().is_some()
        || authority.as_str().contains('@')
        || uri.query().is_some()
        || url.contains('#')
    {
        return None;
    }
    match uri.scheme_str()? {
        "http" => Some(false),
        "https" => Some(true),
        _ => None,
    }
}

/// The way to a server. Only one that speaks TLS needs the certificates that the machine trusts.
fn connector(is_tls: bool) -> Result<HttpsConnector<HttpConnector>, BoxError> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    http.set_keepalive(Some(KEEPALIVE));
    http.set_keepalive_interval(Some(KEEPALIVE));
    http.set_keepalive_retries(Some(KEEPALIVE_PROBES));
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let tls = tls.with_safe_default_protocol_versions()?;
    let tls =
        if is_tls { tls.with_native_roots()? } else { tls.with_root_certificates(RootCertStore::empty()) };
    let https = HttpsConnectorBuilder::new().with_tls_config(tls.with_no_client_auth());
    Ok(https.https_or_http().enable_http1().wrap_connector(http))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_server_or_it_is_none() {
        for (url, expected) in [
            ("http://localhost:8080", Some(false)),
            ("http://10.0.0.1", Some(false)),
            ("http://[::1]:8080/", Some(false)),
            ("https://restate.example/prefix/", Some(true)),
            ("localhost:8080", None),
            ("/restate", None),
            ("ftp://localhost", None),
            ("http://", None),
            ("http://localhost:", None),
            ("http://localhost:99999", None),
            ("http://user:secret@localhost", None),
            ("http://localhost?x=1", None),
            ("http://localhost#x", None),
            ("http://local host", None),
            ("", None),
        ] {
            assert_eq!(is_tls(url), expected, "{url}");
        }
    }
}
