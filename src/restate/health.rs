//! Tracks if a server answers. An outage is one line in the log for all calls, not one for each call.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::BoxError;
use crate::lock::lock;

/// The reason why requests are sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The server cannot be reached, or cannot answer.
    Away,
    /// This program cannot make a connection.
    NoDescriptors,
    /// The server is available again, and does not know the handler.
    Unregistered,
    /// The connection was cut. The server is available and has the call.
    Cut,
}

/// The availability of a server.
#[derive(Debug)]
pub(super) struct Health {
    server: &'static str,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    away_since: Option<Instant>,
    back_since: Option<Instant>,
    /// Troubles that are in the log already.
    logged: Vec<Trouble>,
}

impl Health {
    pub(super) fn new(server: &'static str) -> Self {
        Self { server, state: Mutex::default() }
    }

    /// Records the trouble of a try. If it is new, it is logged.
    pub(super) fn record(&self, trouble: Trouble, began: Instant, error: &BoxError, retry_time: Duration) {
        if !self.is_new(trouble, began) {
            return;
        }
        let server = self.server;
        match trouble {
            Trouble::Away => {
                tracing::warn!(%error, ?retry_time, "the {server} is unavailable, its calls will be retried");
            }
            Trouble::NoDescriptors => tracing::warn!(
                %error,
                "too few file descriptors for the calls: raise `ulimit -n` or lower the concurrency"
            ),
            Trouble::Unregistered => tracing::warn!(
                %error,
                ?retry_time,
                "the {server} is available again but does not know the handler, its calls will be retried"
            ),
            Trouble::Cut => tracing::warn!(
                %error,
                "a connection to the {server} was closed before the handler ended, will attach to the call again; \
                 a proxy may have a time limit"
            ),
        }
    }

    fn is_new(&self, trouble: Trouble, began: Instant) -> bool {
        let mut state = lock(&self.state);
        if trouble == Trouble::Away {
            // A try that started before the server came back proves nothing about the server now.
            if state.back_since.is_some_and(|back| began < back) {
                return false;
            }
            let is_new = state.away_since.is_none();
            state.away_since.get_or_insert_with(Instant::now);
            return is_new;
        }
        let is_new = !state.logged.contains(&trouble);
        if is_new {
            state.logged.push(trouble);
        }
        is_new
    }

    /// Records that the server has answered.
    pub(super) fn record_answer(&self) {
        let mut state = lock(&self.state);
        let Some(since) = state.away_since.take() else { return };
        state.back_since = Some(Instant::now());
        state.logged.retain(|trouble| *trouble != Trouble::Unregistered);
        drop(state);
        tracing::info!(outage = ?since.elapsed(), "the {} is available again", self.server);
    }

    /// Returns `true` if the server has come back within this time.
    pub(super) fn came_back_within(&self, time: Duration) -> bool {
        lock(&self.state).back_since.is_some_and(|back| back.elapsed() < time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(60);

    fn record(health: &Health, trouble: Trouble) {
        health.record(trouble, Instant::now(), &"no".into(), TIME);
    }

    #[test]
    fn only_a_server_that_is_away_comes_back() {
        let health = Health::new("ingress");
        for trouble in [Trouble::NoDescriptors, Trouble::Cut, Trouble::Unregistered] {
            record(&health, trouble);
            health.record_answer();
            assert!(!health.came_back_within(TIME), "{trouble:?}");
        }
        record(&health, Trouble::Away);
        assert!(!health.came_back_within(TIME));
        health.record_answer();
        assert!(health.came_back_within(TIME) && !health.came_back_within(Duration::ZERO));
    }

    #[test]
    fn the_log_has_an_outage_once_and_other_trouble_once() {
        let health = Health::new("ingress");
        let new = |trouble| health.is_new(trouble, Instant::now());
        assert_eq!([(); 3].map(|()| new(Trouble::Away)), [true, false, false]);
        assert_eq!([(); 2].map(|()| new(Trouble::NoDescriptors)), [true, false]);
        assert_eq!([(); 2].map(|()| new(Trouble::Unregistered)), [true, false]);
        health.record_answer();
        assert_eq!(
            [new(Trouble::Away), new(Trouble::NoDescriptors), new(Trouble::Unregistered)],
            [true, false, true]
        );
    }

    #[test]
    fn a_try_from_before_the_server_was_back_is_no_new_outage() {
        let health = Health::new("ingress");
        let early = Instant::now();
        record(&health, Trouble::Away);
        health.record_answer();
        assert!(!health.is_new(Trouble::Away, early));
        assert!(health.is_new(Trouble::Away, Instant::now()));
    }
}
