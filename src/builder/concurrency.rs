//! The settings that bound how many items run, and how many are held.

use super::AsyncMapTaskBuilder;

/// # How many at once
impl AsyncMapTaskBuilder {
    /// Sets how many attempts of one run may run at the same time. With 1, items run one after the other.
    ///
    /// The default is [`DEFAULT_CONCURRENCY`](crate::DEFAULT_CONCURRENCY), 4. A permit that becomes free is used
    /// immediately; there are no batches. An item that waits for its retry has no permit: with `concurrency(8)` and 3
    /// items waiting, 8 others can run. [`look_ahead`](Self::look_ahead) bounds how many can wait.
    ///
    /// 0 is an error of [`build`](Self::build). The guide helps to [choose the
    /// number](crate::guide::limits#choosing-the-concurrency).
    ///
    /// # Examples
    ///
    /// ```
    /// # use async_map_task::AsyncMapTask;
    /// let task = AsyncMapTask::builder().concurrency(64).build()?;
    ///
    /// let error = AsyncMapTask::builder().concurrency(0).build().unwrap_err();
    /// assert_eq!((error.field(), error.found()), ("concurrency", "0"));
    /// # Ok::<_, async_map_task::ConfigError>(())
    /// ```
    #[doc(alias(
        "concurrency limit",
        "max_concurrency",
        "bounded",
        "pool",
        "workers",
        "worker",
        "semaphore",
        "limit"
    ))]
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.settings.concurrency = concurrency;
        self
    }

    /// Removes the limit: every item starts as soon as the source yields it. This is the same as
    /// [`concurrency(usize::MAX)`](Self::concurrency).
    ///
    /// A source of a million items then means a million attempts in memory at once. Use this for inputs that you know
    /// to be small, or for functions that bound themselves.
    ///
    /// # Examples
    ///
    /// ```
    /// # use async_map_task::AsyncMapTask;
    /// let ask_all_five_replicas = AsyncMapTask::builder().unbounded_concurrency().build()?;
    /// # Ok::<_, async_map_task::ConfigError>(())
    /// ```
    #[doc(alias("unlimited"))]
    pub fn unbounded_concurrency(self) -> Self {
        self.concurrency(usize::MAX)
    }

    /// Sets how many items of one run may be *held*, in addition to the running ones, before no new item starts.
    ///
    /// An item that waits for its [retry](Self::retries) is held. In an [`ordered`](crate::MapRun::ordered) run, a
    /// settled item is also held until its outcome is taken. A held item has no permit, so other items run meanwhile.
    /// While `look_ahead` items are held, the run pulls no more from its source. The attempts that run at that moment
    /// can still join, so fewer than `look_ahead + concurrency` items are ever held. Items count, not their
    /// [`weight`](crate::MapRun::weight).
    ///
    /// The default is 256 or 16 times [`concurrency`](Self::concurrency), whichever is more: with `concurrency(4)`
    /// 256, with `concurrency(64)` 1,024. It follows the `concurrency` of the built task, not later changes.
    ///
    /// A window that is too small leaves permits unused while items wait. By Little's law, a run holds its failures
    /// per second times the sum of their delays. For example, 1,000 attempts per second of which 2% fail and wait 5 s
    /// hold 20 x 5 = 100 items. Raise `look_ahead` if that number is above it.
    ///
    /// Lower `look_ahead` if held items are large. An item that waits for a retry keeps its input, and an outcome
    /// that an `ordered` run holds back keeps its output. With outputs of 10 MB and `concurrency(8)`, the default can
    /// hold 2.6 GB, and `look_ahead(16)` at most 230 MB. The guide has [tables](crate::guide::retries#how-many-items-are-held).
    ///
    /// In a run of [batches](crate::Over::map_batches), the default is at least 2 x `concurrency` x the size of a batch.
    ///
    /// 0 is an error of [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```
    /// # use async_map_task::AsyncMapTask;
    /// // A service that is down for a minute: items wait for their retries while others run.
    /// let patient = AsyncMapTask::builder().concurrency(16).retries(8).look_ahead(10_000).build()?;
    /// // Large outputs in input order: no more than 15 images are held.
    /// let frugal = AsyncMapTask::builder().concurrency(8).look_ahead(8).build()?;
    ///
    /// let error = AsyncMapTask::builder().look_ahead(0).build().unwrap_err();
    /// assert_eq!(error.to_string(), "look_ahead must be at least 1, got 0");
    /// # Ok::<_, async_map_task::ConfigError>(())
    /// ```
    #[doc(alias("window", "buffer", "prefetch", "backpressure"))]
    pub fn look_ahead(mut self, items: usize) -> Self {
        self.settings.look_ahead = Some(items);
        self
    }
}
