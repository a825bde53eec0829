//! Why a call had no output.

use std::time::Duration;

use super::one_line::OneLine;
use crate::count::Count;
use crate::error::{BoxError, ConfigError};

/// Why a call to a handler had no output. It is the error of the item.
///
/// All messages are one line: text from elsewhere is escaped there, and cut after 400 characters. The fields have the whole of
/// it. What the messages do not repeat is the run and the index, which the run's own error says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestateError {
    /// The handler ended with a terminal error: the work was done, and it failed.
    #[error("the handler failed with code {code}: {}", OneLine(message))]
    Handler {
        /// The code that the handler gave, 500 where it gave none. The engine's own are among them, such as 400 for an
        /// item that the handler's type of input cannot hold.
        code: u16,
        /// What the handler says.
        message: String,
        /// What the engine calls the invocation: look for it there.
        invocation_id: String,
    },
    /// The invocation was cancelled or killed in the engine, by an operator or by another program.
    ///
    /// A handler's own terminal error cannot be told from it that has the code 409 and the message `cancelled` or
    /// `killed`.
    #[error("invocation {invocation_id} was {message} in the engine")]
    Cancelled {
        /// `cancelled` or `killed`.
        message: String,
        /// What the engine calls the invocation.
        invocation_id: String,
    },
    /// A server could not be reached, or could not answer, for the whole [retry
    /// time](super::RestateBuilder::retry_time), or until no further try would have fitted before the deadline.
    #[error("the {server} has been unavailable for {since:.1?}, {}: {}", Count(*tries, "try"), OneLine(source))]
    Unavailable {
        /// `ingress` or `admin API`.
        server: &'static str,
        /// Since when: from the first try that failed to the last.
        since: Duration,
        /// How many tries in succession have failed.
        tries: u32,
        /// What became of the last one.
        source: BoxError,
    },
    /// The certificate of a server is not one that this machine trusts. It is not tried again.
    ///
    /// The system's certificates are trusted; the environment variables `SSL_CERT_FILE` and `SSL_CERT_DIR` name others in
    /// their place.
    #[error("the certificate of the {server} is not trusted: {}", OneLine(source))]
    Certificate {
        /// `ingress` or `admin API`.
        server: &'static str,
        /// What is wrong with it.
        source: BoxError,
    },
    /// The item or the output is larger than the [limit of a message](super::RestateBuilder::message_limit). An item
    /// that is was not sent.
    #[error("the {what} is {} of JSON, the limit is {limit}", Count(*size, "byte"))]
    TooLarge {
        /// `item` or `output`.
        what: &'static str,
        /// Its size in bytes; of an output whose size is not announced, how much of it has come.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The item cannot be made JSON. Nothing was sent.
    #[error("the item cannot be made JSON: {}", OneLine(source))]
    Item {
        /// Why.
        source: BoxError,
    },
    /// The handler's output is none of the type that was asked for.
    #[error("the output of invocation {invocation_id} is no {expected}: {}, in {found}", OneLine(source))]
    Output {
        /// The type that was asked for.
        expected: &'static str,
        /// The beginning of the output.
        found: String,
        /// What the engine calls the invocation.
        invocation_id: String,
        /// Why it does not fit.
        source: BoxError,
    },
    /// The engine has no such service or handler.
    #[error("there is no such handler: {}", OneLine(message))]
    NotFound {
        /// What the engine says, with the name of the service or of the handler that it does not know.
        message: String,
    },
    /// The token was refused, or there was none, by the engine or by what stands before it.
    #[error("the {server} refused the bearer token with status {status}: {}", OneLine(message))]
    Unauthorized {
        /// `ingress` or `admin API`.
        server: &'static str,
        /// The HTTP status, 401, 403 or 407.
        status: u16,
        /// The beginning of what was answered.
        message: String,
    },
    /// The answer is a success, and not one of Restate: something else answers at this URL, or a proxy has lost the headers.
    ///
    /// An answer is the outcome of an item only if the engine names the invocation in it, in `x-restate-id`.
    #[error("what answers as the {server}, with status {status}, is not Restate: {}", OneLine(message))]
    NotRestate {
        /// `ingress` or `admin API`.
        server: &'static str,
        /// The HTTP status.
        status: u16,
        /// The beginning of what was answered.
        message: String,
    },
    /// The request was refused for another reason.
    #[error("the {server} refused the call with status {status}: {}", OneLine(message))]
    Rejected {
        /// `ingress` or `admin API`.
        server: &'static str,
        /// The HTTP status.
        status: u16,
        /// The beginning of what was answered.
        message: String,
    },
    /// The name of the service, of the handler or of the run cannot be sent. Nothing was.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl RestateError {
    /// Whether another attempt may end otherwise: made for [`retry_if`](crate::MapRun::retry_if).
    ///
    /// So it is with [`Handler`](Self::Handler), [`Cancelled`](Self::Cancelled) and [`Unavailable`](Self::Unavailable).
    /// All others would only fail again. For a finer choice, match on the `code` of `Handler`: which of its codes are
    /// worth a retry is the handler's to say.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Handler { .. } | Self::Cancelled { .. } | Self::Unavailable { .. })
    }
}
