//! A server that may be unavailable for a while: the ingress, or the admin API.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes};
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self as client, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::{Instant, sleep, timeout};

use super::health::{Health, Trouble};
use super::reply::{Fault, Reply, excerpt, with_causes};
use super::tries::{Failure, Tries, Try, failed};
use crate::error::{BoxError, ConfigError};

/// The names of the servers in messages.
pub(super) const INGRESS: &str = "ingress";
pub(super) const ADMIN: &str = "admin API";

/// How long it may take to make a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the answer to a request may take that waits for no handler. A server that is starting may accept a request and
/// never answer it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// A peer that vanished is detected after this time and a few probes at the same interval.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 3;

/// The ingress or the admin API.
#[derive(Debug)]
pub(super) struct Server {
    /// The name of the setting that contains its URL.
    setting: &'static str,
    name: &'static str,
    /// Its URL, without a slash at the end.
    base: String,
    authorization: Option<HeaderValue>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    retry_time: Duration,
    message_limit: usize,
    pub(super) health: Health,
}

impl Server {
    pub(super) fn new(
        setting: &'static str,
        name: &'static str,
        url: &str,
        authorization: Option<HeaderValue>,
        retry_time: Duration,
        message_limit: usize,
    ) -> Result<Self, ConfigError> {
        let is_tls = is_tls(url).ok_or_else(|| {
            // The URL may contain a password, which must not get into a log.
            let found = if url.contains('@') { "a URL with a user" } else { url };
            ConfigError::new(
                setting,
                format_args!("`{}`", found.escape_debug()),
                "a URL with http:// or https:// and a host",
            )
        })?;
        let connector = connector(is_tls).map_err(|error| {
            ConfigError::new(
                setting,
                format_args!("https:// ({error})"),
                "http:// on a machine without trusted certificates",
            )
        })?;
        Ok(Self {
            setting,
            name,
            base: url.trim_end_matches('/').to_owned(),
            authorization,
            client: Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector),
            retry_time,
            message_limit,
            health: Health::new(name),
        })
    }

    pub(super) fn uri(&self, path: &str) -> Result<Uri, ConfigError> {
        let uri = format!("{}{path}", self.base);
        uri.parse().map_err(|error| ConfigError::new(self.setting, format_args!("`{uri}`: {error}"), "a URL"))
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

    /// Returns the time until which a request is sent again, if it is sent now and fails immediately.
    pub(super) fn deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(self.retry_time)
    }

    /// Returns how long a server may be unavailable, or not know a handler after that.
    pub(super) fn retry_time(&self) -> Duration {
        self.retry_time
    }

    /// Sends a request that waits for no handler and may be sent more than once. Sends it again until it is answered, for as
    /// long as the server may be unavailable. Gives up earlier if another try would start after the deadline.
    pub(super) async fn send(
        &self,
        request: &Request<Full<Bytes>>,
        deadline: Option<Instant>,
    ) -> Result<Reply, Fault> {
        let mut tries = Tries::default();
        loop {
            match self.try_in_time(request.clone()).await {
                Try::Ended(ended) => return ended,
                Try::Failed(failure) => self.wait(&mut tries, failure, deadline).await?,
            }
        }
    }

    /// Waits until the next try may start.
    ///
    /// # Errors
    ///
    /// Returns [`Fault::Unreachable`] if there is no time for another try.
    pub(super) async fn wait(
        &self,
        tries: &mut Tries,
        failure: Failure,
        deadline: Option<Instant>,
    ) -> Result<(), Fault> {
        let (since, wait) = tries.fail(failure.is_sent);
        if since + wait > self.retry_time
            || deadline.is_some_and(|deadline| Instant::now() + wait >= deadline)
        {
            let (server, tries, is_sent) = (self.name, tries.failures(), tries.is_sent);
            return Err(Fault::Unreachable { server, since, tries, is_sent, source: failure.error });
        }
        self.health.record(failure.trouble, failure.began, &failure.error, self.retry_time);
        sleep(wait).await;
        Ok(())
    }

    /// Tries a request that waits for no handler once, within [`ANSWER_TIMEOUT`].
    pub(super) async fn try_in_time(&self, request: Request<Full<Bytes>>) -> Try {
        let began = Instant::now();
        let ended = timeout(ANSWER_TIMEOUT, self.try_once(request)).await;
        let silent = || failed(Trouble::Away, began, true, format!("no answer within {ANSWER_TIMEOUT:?}"));
        ended.unwrap_or_else(|_| Try::Failed(silent()))
    }

    /// Tries a request once, and records that the server is available if it answers.
    pub(super) async fn try_once(&self, request: Request<Full<Bytes>>) -> Try {
        let ended = self.exchange(request).await;
        if matches!(ended, Try::Ended(Ok(_) | Err(Fault::TooLarge { .. }))) {
            self.health.record_answer();
        }
        ended
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Try {
        let began = Instant::now();
        let reply = match self.client.request(request).await {
            Ok(reply) => reply,
            Err(error) => return self.no_answer(error, began),
        };
        let (head, body) = reply.into_parts();
        let (announced, limit) = (body.size_hint().lower(), self.message_limit as u64);
        let body = match Limited::new(body, self.message_limit).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Try::Ended(Err(Fault::TooLarge { size: announced.max(limit + 1), limit }));
            }
            Err(error) => {
                return Try::Failed(failed(Trouble::Away, began, true, with_causes(error.as_ref())));
            }
        };
        let reply = Reply { status: head.status, headers: head.headers, body };
        if reply.is_transient() {
            let error = format!("status {}: {}", reply.status.as_u16(), excerpt(&reply.body));
            return Try::Failed(failed(Trouble::Away, began, true, error));
        }
        Try::Ended(Ok(reply))
    }

    /// Returns the result of a try that failed without an answer.
    fn no_answer(&self, error: client::Error, began: Instant) -> Try {
        if find(&error, is_untrusted) {
            return Try::Ended(Err(Fault::Certificate {
                server: self.name,
                source: with_causes(&error).into(),
            }));
        }
        if find(&error, is_full) {
            let error = format!("no file descriptors left, see `ulimit -n`: {}", with_causes(&error));
            return Try::Failed(failed(Trouble::NoDescriptors, began, false, error));
        }
        Try::Failed(failed(Trouble::Away, began, !error.is_connect(), with_causes(&error)))
    }
}

/// `EMFILE` and `ENFILE` on all Unix systems.
const NO_DESCRIPTORS: [i32; 2] = [24, 23];

fn is_full(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| NO_DESCRIPTORS.contains(&code))
}

fn is_untrusted(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(_))
}

/// Returns `true` if the predicate accepts an error or one of its causes. An error that an `io::Error` wraps is not among
/// the causes that `source` returns.
fn find<E: Error + 'static>(error: &(dyn Error + 'static), predicate: impl Fn(&E) -> bool) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<E>().is_some_and(&predicate) {
            return true;
        }
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    false
}

/// Returns `true` if a URL asks for TLS, or `None` if it is not the URL of a server.
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

/// Creates the connector to a server. Only with TLS does it load the certificates that the machine trusts.
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_never_answered_is_sent_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serve = tokio::spawn(async move {
            let (mut silent, _) = listener.accept().await.unwrap();
            let (mut other, _) = listener.accept().await.unwrap();
            for connection in [&mut silent, &mut other] {
                assert!(connection.read(&mut [0; 1_000]).await.unwrap() > 0);
            }
            other.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        });
        let server = Server::new("admin", ADMIN, &url, None, Duration::from_secs(60), 1_000).unwrap();
        let request = server.request(Method::PATCH, server.uri("/cancel").unwrap(), Bytes::new());
        let began = Instant::now();
        let answered = timeout(2 * ANSWER_TIMEOUT, server.send(&request, None)).await;
        assert_eq!(answered.unwrap().unwrap().status.as_u16(), 202);
        assert!(began.elapsed() >= ANSWER_TIMEOUT);
        serve.await.unwrap();
    }

    #[test]
    fn a_cause_is_found_inside_of_others() {
        let full = io::Error::from_raw_os_error(24);
        let wrapped = io::Error::other(io::Error::other(full));
        assert!(find(&wrapped, is_full));
        assert!(!find(&io::Error::other("full"), is_full));
        let untrusted = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        assert!(find(&io::Error::other(untrusted), is_untrusted));
        assert!(!find(&io::Error::other(rustls::Error::DecryptError), is_untrusted));
    }

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
