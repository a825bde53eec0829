//! All jobs: those that run, and the last that have ended.
//!
//! A job holds at most its URLs and a line for each, which a request of at most
//! [`MAX_BODY`](crate::api::MAX_BODY) and [`MAX_ITEMS`](crate::order::MAX_ITEMS) keep to a few megabytes. With the
//! two limits here, the memory of the service has an end, however many jobs it is sent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;

use crate::job::{Asked, Job};
use crate::reply::ApiError;

/// The most jobs that run; another one is refused.
const MAX_ALIVE: usize = 256;

/// The most jobs that have ended and can still be asked for; the one that ended first goes first. A reader that has
/// begun keeps its job's record until it is done.
const MAX_ENDED: usize = 256;

#[derive(Default)]
pub(crate) struct Jobs {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    last_id: u64,
    by_id: BTreeMap<u64, Arc<Job>>,
    is_closed: bool,
}

impl Jobs {
    /// Adds the job that `start` makes of its id, unless there are too many or the service is shutting down.
    pub(crate) fn add(&self, start: impl FnOnce(u64) -> Result<Job, ApiError>) -> Result<Arc<Job>, ApiError> {
        let mut inner = self.lock();
        if inner.is_closed {
            return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the service is shutting down"));
        }
        if inner.alive().count() >= MAX_ALIVE {
            let message = format!("at most {MAX_ALIVE} jobs can run at once");
            return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message));
        }
        let job = Arc::new(start(inner.last_id + 1)?);
        inner.last_id = job.id();
        inner.by_id.insert(job.id(), Arc::clone(&job));
        Ok(job)
    }

    pub(crate) fn get(&self, id: &str) -> Result<Arc<Job>, ApiError> {
        let job = id.parse().ok().and_then(|id: u64| self.lock().by_id.get(&id).cloned());
        job.ok_or_else(|| {
            ApiError::new(StatusCode::NOT_FOUND, format!("job {id} does not exist or has been deleted"))
        })
    }

    /// How many jobs run, and how many have ended and are still kept.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let inner = self.lock();
        let alive = inner.alive().count();
        (alive, inner.by_id.len() - alive)
    }

    /// Takes no further job, and lets those that run start no further item.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.is_closed = true;
        inner.alive().for_each(|job| {
            job.ask(Asked::Drain);
        });
    }

    /// Waits for the end of every job there is.
    pub(crate) async fn ended(&self) {
        let jobs: Vec<_> = self.lock().alive().cloned().collect();
        for job in jobs {
            job.record().closed().await;
        }
    }

    /// Nobody sees more jobs than there may be.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.evict();
        inner
    }
}

impl Inner {
    fn alive(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.by_id.values().filter(|job| !job.is_over())
    }

    /// Forgets the jobs that ended first, where there are too many.
    fn evict(&mut self) {
        let ended = self.by_id.values().filter(|job| job.is_over());
        let mut ended: Vec<_> = ended.map(|job| (job.record().end().map(|end| end.at), job.id())).collect();
        let surplus = ended.len().saturating_sub(MAX_ENDED);
        if surplus > 0 {
            ended.sort_unstable();
            for (_, id) in ended.iter().take(surplus) {
                self.by_id.remove(id);
            }
        }
    }
}
