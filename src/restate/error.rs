//! The error of a call without an output.

use std::time::Duration;

use super::one_line::OneLine;
use crate::count::Count;
use crate::error::{BoxError, ConfigError};

/// The reason why a call to a handler had no output. It is the error of the item.
///
/// Each message is one line. Text from elsewhere is escaped in it, and cut after 400 characters. The fields contain the
/// whole text. The messages do not name the run and the index, because the error of the run does.
///
/// After any error, the engine keeps the outcomes that it has, and a run with the same id continues from there.
///
/// # Messages and remedies
///
/// | text | what to do |
/// |---|---|
/// | `the handler failed with code 404: ..` | this is the handler's own error, or its last error after `max_attempts`. 400 with `Cannot decode input payload` means that the item does not fit its input type |
/// | `invocation inv_1.. was killed in the engine` | it was stopped by hand or by another program: start the run again |
/// | `the ingress has been unavailable for 120.3s and 31 tries: ..` | is the server up, is it this URL? Then start the run again with the same id |
/// | `the admin API has been unavailable for ..`, `the admin API refused the call with status 404: ..` | is it up, is it this URL, and does it belong to the engine of this ingress? |
/// | `the certificate of the ingress is not trusted: ..` | `UnknownIssuer` or `BadSignature`: name its CA in `SSL_CERT_FILE`, a file of PEM; `not valid for name`: the URL has another host; `CaUsedAsEndEntity`: see [TLS](crate::restate#tls-and-a-token) |
/// | from `build`: `no native root CA certificates found` | `SSL_CERT_FILE` does not name a file, or the file is not PEM |
/// | `the answer of the ingress, with status 200, is not from Restate: ..` | another server is at this URL, or a proxy answers itself or drops headers |
/// | `the item must have at most 33488896 bytes of JSON, got 40000000` | send a name, not the content; or raise the [limits](crate::restate#limits) of both |
/// | `the item cannot be serialized as JSON: ..` | JSON cannot represent the item, such as a path that is not UTF-8 |
/// | `the output of invocation inv_1.. does not have the type usize: .., in ..` | worker and coordinator do not agree on the type: deploy both |
/// | `unknown service or handler: ..` | the worker is not registered, or its names are different: `curl localhost:9070/services` |
/// | `the ingress refused the bearer token with status 401: ..` | check the token, and the proxy that checks it |
/// | in `last_failure`: error 570 or `stream no longer needed` | see [a new version of a worker](crate::restate#a-new-version-of-a-worker), or the handler panics |
/// | `the ingress refused the call with status 413: ..` | the server, or a proxy before it, does not accept a message of this size |
/// | ``run_id must be .., got `a b` `` | use visible ASCII characters, without blanks |
/// | the item timed out, and nothing else is said | no worker had time for it, or it is [backing off or paused](crate::restate#queries-for-an-operator) |
/// | in the log: `failed to cancel an invocation, it may still run` | the error in the same line has the reason: kill the invocation by hand |
/// | in the log: `the ingress is available again but does not know the handler` | it came back without its data: register the workers again |
/// | in the log: `too few file descriptors for the calls` | raise `ulimit -n` above the concurrency, or lower the concurrency |
/// | in the log: `a connection to the ingress was closed before the handler ended` | [a proxy](crate::restate#a-proxy-before-the-ingress) has a time limit |
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestateError {
    /// The handler ended with a terminal error: it ran, and it failed.
    #[error("the handler failed with code {code}: {}", OneLine(message))]
    Handler {
        /// The code that the handler set, or 500 if it set none. The engine has codes of its own, such as 400 for an item
        /// that does not fit the input type of the handler.
        code: u16,
        /// The message of the handler.
        message: String,
        /// The id of the invocation in the engine.
        invocation_id: String,
    },
    /// The invocation was cancelled or killed in the engine, by an operator or by another program.
    ///
    /// A handler's own terminal error with the code 409 and the message `cancelled` or `killed` looks the same.
    #[error("invocation {invocation_id} was {message} in the engine")]
    Cancelled {
        /// `cancelled` or `killed`.
        message: String,
        /// The id of the invocation in the engine.
        invocation_id: String,
    },
    /// A server could not be reached, or could not answer, for the whole [retry time](super::RestateBuilder::retry_time), or
    /// until the deadline left no time for another try.
    #[error("the {server} has been unavailable for {since:.1?} and {}: {}", Count(*tries, "try"), OneLine(source))]
    Unavailable {
        /// `ingress` or `admin API`.
        server: &'static str,
        /// The time from the first failed try to the last.
        since: Duration,
        /// How many tries in succession have failed.
        tries: u32,
        /// The error of the last one.
        source: BoxError,
    },
    /// This machine does not trust the certificate of a server. The request is not sent again.
    ///
    /// The system's certificates are trusted. The environment variables `SSL_CERT_FILE` and `SSL_CERT_DIR` replace them by
    /// others.
    #[error("the certificate of the {server} is not trusted: {}", OneLine(source))]
    Certificate {
        /// `ingress` or `admin API`.
        server: &'static str,
        /// The defect of the certificate.
        source: BoxError,
    },
    /// The item or the output is larger than the [limit of a message](super::RestateBuilder::message_limit). Such an item
    /// was not sent.
    #[error("the {what} must have at most {limit} bytes of JSON, got {size}")]
    TooLarge {
        /// `item` or `output`.
        what: &'static str,
        /// Its size in bytes. If the size of an output is not announced, this is how much of it was received.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The item cannot be serialized as JSON. Nothing was sent.
    #[error("the item cannot be serialized as JSON: {}", OneLine(source))]
    Item {
        /// The reason.
        source: BoxError,
    },
    /// The handler's output does not have the expected type.
    #[error(
        "the output of invocation {invocation_id} does not have the type {expected}: {}, in {found}",
        OneLine(source)
    )]
    Output {
        /// The expected type.
        expected: &'static str,
        /// The beginning of the output.
        found: String,
        /// The id of the invocation in the engine.
        invocation_id: String,
        /// The reason why it does not fit.
        source: BoxError,
    },
    /// The engine has no such service or handler.
    #[error("unknown service or handler: {}", OneLine(message))]
    NotFound {
        /// The message of the engine, with the name of the unknown service or handler.
        message: String,
    },
    /// The engine, or a proxy before it, refused the token or asked for one.
    #[error("the {server} refused the bearer token with status {status}: {}", OneLine(message))]
    Unauthorized {
        /// `ingress` or `admin API`.
        server: &'static str,
        /// The HTTP status, 401, 403 or 407.
        status: u16,
        /// The message of the engine, or the beginning of the answer.
        message: String,
    },
    /// The answer is a success, but does not come from Restate. Another program answers at this URL, or a proxy has dropped
    /// the headers.
    ///
    /// An answer is the outcome of an item only if the engine names the invocation in its header `x-restate-id`.
    #[error("the answer of the {server}, with status {status}, is not from Restate: {}", OneLine(message))]
    NotRestate {
        /// `ingress` or `admin API`.
        server: &'static str,
        /// The HTTP status.
        status: u16,
        /// The message of the engine, or the beginning of the answer.
        message: String,
    },
    /// The request was refused for another reason.
    #[error("the {server} refused the call with status {status}: {}", OneLine(message))]
    Rejected {
        /// `ingress` or `admin API`.
        server: &'static str,
        /// The HTTP status.
        status: u16,
        /// The message of the engine, or the beginning of the answer.
        message: String,
    },
    /// The name of the service, of the handler or of the run is not allowed. Nothing was sent.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl RestateError {
    /// Returns `true` if another attempt may succeed. Use it with [`retry_if`](crate::MapRun::retry_if).
    ///
    /// [`Handler`](Self::Handler), [`Cancelled`](Self::Cancelled) and [`Unavailable`](Self::Unavailable) are retryable. All
    /// other errors would occur again. For a finer choice, match on the `code` of `Handler`: the handler defines which of
    /// its codes are worth a retry.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Handler { .. } | Self::Cancelled { .. } | Self::Unavailable { .. })
    }
}
