//! How the engine is reached.

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

/// Describes how the engine is reached; begun by [`Restate::builder`], ended by [`build`](Self::build).
#[derive(Debug, Clone)]
#[must_use = "it does nothing before `build`"]
pub struct RestateBuilder {
    ingress: String,
    admin: Option<String>,
    bearer_token: Option<Secret>,
    retry_time: Duration,
    kill_after: Duration,
    message_limit: usize,
}

/// Text that no log shall have.
#[derive(Clone)]
struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

impl RestateBuilder {
    /// The [`retry_time`](Self::retry_time) where none is set: longer than a server takes to be started again.
    pub const DEFAULT_RETRY_TIME: Duration = Duration::from_secs(120);

    /// The time to [`kill_after`](Self::kill_after) where none is set.
    pub const DEFAULT_KILL_AFTER: Duration = Duration::from_secs(5);

    /// The [`message_limit`](Self::message_limit) where none is set: what an engine takes that has its default limits
    /// of 32 MiB a message and 32 MiB an invocation, of which it keeps 32 KiB for itself.
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

    /// The URL of the admin API, through which a stopped run cancels what it has left running.
    ///
    /// The default is none, and nothing is cancelled: an item that is timed out, cancelled or dropped runs on in the
    /// engine, and its outcome is kept under its key. The API must be that of the same engine as the ingress.
    pub fn admin(mut self, url: impl Into<String>) -> Self {
        self.admin = Some(url.into());
        self
    }

    /// The token that the ingress and the admin API are sent, as `Authorization: Bearer`.
    ///
    /// The default is none. It is shown in no error and by no `Debug`.
    pub fn bearer_token(mut self, token: impl Into<String>) -> Self {
        self.bearer_token = Some(Secret(token.into()));
        self
    }

    /// For how long a call is sent again while the ingress is away, from the first failure on, before it is
    /// [`Unavailable`](super::RestateError::Unavailable).
    ///
    /// The default is [`DEFAULT_RETRY_TIME`](Self::DEFAULT_RETRY_TIME), two minutes; zero is one try. The waits grow from
    /// 50 ms to 5 s and are jittered. An item gives up earlier where its
    /// [deadline](crate::ItemContext::deadline) leaves no time for another try. A connection that breaks while a handler
    /// works is no failure where the engine has the call: it is attached to again, however often. A handler that is not
    /// registered after an outage is waited for as long. A request that waits for no handler, such as a cancel, fails after 20 s
    /// without an answer, and is sent again.
    pub fn retry_time(mut self, retry_time: Duration) -> Self {
        self.retry_time = retry_time;
        self
    }

    /// How long a handler has to end after its invocation was cancelled, before the invocation is killed.
    ///
    /// The default is [`DEFAULT_KILL_AFTER`](Self::DEFAULT_KILL_AFTER), 5 s. A handler learns of its cancelling where it
    /// next awaits something of the engine's, such as `ctx.sleep`, and may undo there what it has done; while it awaits
    /// something else, and inside of `ctx.run`, it goes on. A killed one is dropped where it stands. With
    /// [`Duration::MAX`] none is killed. A retry waits for this end, so give an attempt a longer time.
    pub fn kill_after(mut self, time: Duration) -> Self {
        self.kill_after = time;
        self
    }

    /// How many bytes of JSON an item and an output may have. A larger one is
    /// [`TooLarge`](super::RestateError::TooLarge), and such an item is not sent.
    ///
    /// The default is [`DEFAULT_MESSAGE_LIMIT`](Self::DEFAULT_MESSAGE_LIMIT), 64 KiB less than 32 MiB. Set it where the
    /// engine has other limits (`message-size-limit` and `per-invocation-memory-limit`). What passes here and is
    /// too large there is not refused by the engine: it pauses the invocation, and its caller waits.
    pub fn message_limit(mut self, bytes: usize) -> Self {
        self.message_limit = bytes;
        self
    }

    /// Checks the settings. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] where a URL is not `http://` or `https://` and a host, with a port or a path if need be; where the
    /// token is empty or has a character that none can have; where the limit of a message is zero; where a URL is
    /// `https://` and the machine has no certificates to trust.
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
            places: Semaphore::new(CANCELLED_AT_ONCE),
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
            if token.is_empty() { "an empty token" } else { "a token with a character that none can have" };
        ConfigError::new("bearer_token", found, "visible characters of ASCII, at least one")
    })?;
    header.set_sensitive(true);
    Ok(header)
}
