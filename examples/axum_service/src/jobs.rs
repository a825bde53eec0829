//! All jobs: those that run, and the most recent ones that have ended.
//!
//! A job keeps its URLs and at most one line for each. A request of at most [`MAX_BODY`](crate::body::MAX_BODY) and
//! [`MAX_ITEMS`](crate::order::MAX_ITEMS) keeps this below a few megabytes. With the two limits here, the memory of
//! the service is bounded for any number of jobs.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;

use crate::job::{Asked, Job, Names, Status};
use crate::reply::ApiError;

/// The maximum number of running jobs. Another job is refused.
const MAX_ALIVE: usize = 256;

/// The maximum number of ended jobs that are kept. The job that ended first is deleted first. A reader keeps the
/// record of its job until it has read all of it.
const MAX_ENDED: usize = 256;

#[derive(Default)]
pub(crate) struct Jobs {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    last_number: u64,
    by_id: HashMap<String, Arc<Job>>,
    is_closed: bool,
}

impl Jobs {
    /// Adds the job that `start` creates for its names, unless there are too many jobs or the service is shutting down.
    pub(crate) fn add(
        &self,
        start: impl FnOnce(Names) -> Result<Job, ApiError>,
    ) -> Result<Arc<Job>, ApiError> {
        let id = random_id()?;
        let mut inner = self.lock();
        if inner.is_closed {
            return Err(ApiError::busy("the service is shutting down"));
        }
        if inner.alive().count() >= MAX_ALIVE {
            return Err(ApiError::busy(format!("at most {MAX_ALIVE} jobs can run at once")));
        }
        let number = inner.last_number + 1;
        let job = Arc::new(start(Names { id: id.clone(), number })?);
        inner.last_number = number;
        inner.by_id.insert(id, Arc::clone(&job));
        Ok(job)
    }

    pub(crate) fn get(&self, id: &str) -> Result<Arc<Job>, ApiError> {
        let job = self.lock().by_id.get(id).cloned();
        job.ok_or_else(|| {
            ApiError::new(StatusCode::NOT_FOUND, format!("job {id} does not exist or has been deleted"))
        })
    }

    /// Returns the status of every job, the newest first.
    pub(crate) fn list(&self) -> Vec<Status> {
        let mut jobs: Vec<_> = self.lock().by_id.values().cloned().collect();
        jobs.sort_unstable_by_key(|job| Reverse(job.names().number));
        jobs.iter().map(|job| job.status()).collect()
    }

    /// Returns the number of running jobs, and the number of ended jobs that are kept.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let inner = self.lock();
        let alive = inner.alive().count();
        (alive, inner.by_id.len() - alive)
    }

    /// Accepts no further job. Running jobs start no further item.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.is_closed = true;
        inner.alive().for_each(|job| {
            job.ask(Asked::Drain);
        });
    }

    /// Waits for the end of all jobs.
    pub(crate) async fn ended(&self) {
        let jobs: Vec<_> = self.lock().alive().cloned().collect();
        for job in jobs {
            job.record().closed().await;
        }
    }

    /// Deletes surplus jobs before each access.
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

    /// Deletes the jobs that ended first, if there are too many.
    fn evict(&mut self) {
        let mut ended: Vec<_> = self.by_id.values().filter(|job| job.is_over()).cloned().collect();
        let surplus = ended.len().saturating_sub(MAX_ENDED);
        if surplus > 0 {
            ended.sort_unstable_by_key(|job| (job.record().end().map(|end| end.at), job.names().number));
            for job in ended.iter().take(surplus) {
                self.by_id.remove(&job.names().id);
            }
        }
    }
}

/// Returns 128 bits from the random source of the operating system.
fn random_id() -> Result<String, ApiError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}
