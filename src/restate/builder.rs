//! The builder of a `Restate` handle.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use hyper::header::HeaderValue;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::Restate;
use super::cancelling::Cancelling;
use super::engine::{CANCELLED_AT_ONCE, Engine};
use super::server::{ADMIN, INGRESS, Server};
use crate::error::ConfigError;

/// Builds a [`Restate`] handle. Created by [`Restate::builder`], completed by [`build`](Self::build).
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct RestateBuilder {
    ingress: String,
    admin: Option<String>,
    bearer_token: Option<Secret>,
    retry_time: Duration,
    kill_after: Duration,
    message_limit: usize,
}

/// Text that must not get into a log.
#[derive(Clone)]
struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

impl RestateBuilder {
    /// The default of [`retry_time`](Self::retry_time). A restart of the server takes less.
    pub const DEFAULT_RETRY_TIME: Duration = Duration::from_secs(120);

    /// The default of [`kill_after`](Self::kill_after).
    pub const DEFAULT_KILL_AFTER: Duration = Duration::from_secs(5);

    /// The default of [`message_limit`](Self::message_limit). An engine with its default limits accepts messages of this
    /// size. It allows 32 MiB for a message and for an invocation, and reserves 32 KiB of the latter for itself.
    pub const DEFAULT_MESSAGE_LIMIT: usize = (32 << 20) - (64 << 10);

    pub(super) fn new(ingress: String) -> Self {
        Self {
            ingress,
            admin: None,
            bearer_token: None,
            retry_time: Self::DEFAULT_RETRY_TIME,
            kill_after: Self::DEFAULT_KILL_AFTER,
            message_limit: Self::DEFAULT_MESSAGE_LIMIT,
        }
    }

    /// Sets the URL of the admin API. A stopped run uses it to cancel the invocations that it has left running.
    ///
    /// By default there is none, and nothing is cancelled. An item that is timed out, cancelled or dropped then continues in
    /// the engine, and its outcome is kept under its key. The admin API and the ingress must belong to the same engine.
    pub fn admin(mut self, url: impl Into<String>) -> Self {
        self.admin = Some(url.into());
        self
    }

    /// Sets the token that is sent to the ingress and the admin API, as `Authorization: Bearer`.
    ///
    /// By default there is none. Errors and `Debug` output never contain the token.
    pub fn bearer_token(mut self, token: impl Into<String>) -> Self {
        self.bearer_token = Some(Secret(token.into()));
        self
    }

    /// Sets how long a call is sent again while the ingress is unavailable, counted from the first failure. After that, the
    /// call fails with [`Unavailable`](super::RestateError::Unavailable).
    ///
    /// The default is [`DEFAULT_RETRY_TIME`](Self::DEFAULT_RETRY_TIME), two minutes. With zero there is one try.
    ///
    /// - The waits grow from 50 ms to 5 s, and have jitter. An item gives up earlier if its
    ///   [deadline](crate::ItemContext::deadline) leaves no time for another try.
    /// - A connection that breaks while a handler works is not a failure if the engine has the call. The call attaches
    ///   again, however often that happens.
    /// - If a handler is not registered after an outage, the call waits for it for the same time.
    /// - A request that waits for no handler, such as a cancel, fails after 20 s without an answer, and is sent again.
    pub fn retry_time(mut self, retry_time: Duration) -> Self {
        self.retry_time = retry_time;
        self
    }

    /// Sets how long a handler has to end after its invocation was cancelled. After that, the invocation is killed.
    ///
    /// The default is [`DEFAULT_KILL_AFTER`](Self::DEFAULT_KILL_AFTER), 5 s. A handler gets the cancellation when it next
    /// awaits an operation of the engine, such as `ctx.sleep`. There it can undo its work. While it awaits anything else,
    /// and inside `ctx.run`, it continues. A killed handler is dropped at its current `await`. With [`Duration::MAX`], no
    /// invocation is killed. The next run with the same id calls the handler under the next key; an error with which a handler
    /// answers the cancellation is not a failure of the item. Invocations that a dead coordinator has left are cancelled by a
    /// run with its id, for the items that this run has running.
    ///
    /// A retry waits until the attempt before it has ended in the engine. So set a longer
    /// [`timeout_per_attempt`](crate::AsyncMapTaskBuilder::timeout_per_attempt) than this.
    pub fn kill_after(mut self, time: Duration) -> Self {
        self.kill_after = time;
        self
    }

    /// Sets how many bytes of JSON an item and an output may have. A larger one is
    /// [`TooLarge`](super::RestateError::TooLarge), and a larger item is not sent.
    ///
    /// The default is [`DEFAULT_MESSAGE_LIMIT`](Self::DEFAULT_MESSAGE_LIMIT), 64 KiB less than 32 MiB. Set it if the engine
    /// has other limits (`message-size-limit` and `per-invocation-memory-limit`). The engine does not refuse a message that
    /// is within this limit and above its own: it pauses the invocation, and the caller waits.
    pub fn message_limit(mut self, bytes: usize) -> Self {
        self.message_limit = bytes;
        self
    }

    /// Checks the settings, and returns the handle. It makes no connection yet.
    ///
    /// # Errors
    ///
    /// Returns a [`ConfigError`] if:
    ///
    /// - a URL is not `http://` or `https://` and a host, with an optional port and path;
    /// - the token is empty, or contains a character that is not allowed in a token;
    /// - the limit of a message is zero;
    /// - a URL is `https://`, and the machine has no certificates to trust.
    pub fn build(self) -> Result<Restate, ConfigError> {
        if self.message_limit == 0 {
            return Err(ConfigError::new("message_limit", 0, "at least 1 byte"));
        }
        let authorization = self.bearer_token.as_ref().map(authorization).transpose()?;
        let server = |setting, name, url: &str| {
            Server::new(setting, name, url, authorization.clone(), self.retry_time, self.message_limit)
        };
        let engine = Engine {
            ingress: server("ingress", INGRESS, &self.ingress)?,
            admin: self.admin.as_ref().map(|url| server("admin", ADMIN, url)).transpose()?,
            kill_after: self.kill_after,
            message_limit: self.message_limit,
            calls: TaskTracker::new(),
            cancel_permits: Semaphore::new(CANCELLED_AT_ONCE),
            cancelling: Cancelling::default(),
            uncancelled: AtomicUsize::new(0),
        };
        engine.calls.close();
        Ok(Restate { engine: Arc::new(engine) })
    }
}

fn authorization(token: &Secret) -> Result<HeaderValue, ConfigError> {
    let Secret(token) = token;
    let is_allowed = !token.is_empty() && token.chars().all(|c| c.is_ascii_graphic());
    let header = HeaderValue::try_from(format!("Bearer {token}")).ok().filter(|_| is_allowed);
    let mut header = header.ok_or_else(|| {
        let found =
            if token.is_empty() { "an empty token" } else { "a token with a character that is not allowed" };
        ConfigError::new("bearer_token", found, "one or more visible ASCII characters")
    })?;
    header.set_sensitive(true);
    Ok(header)
}
