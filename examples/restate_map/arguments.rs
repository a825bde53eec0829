//! The arguments, and the task and the engine that they ask for.

use std::path::PathBuf;
use std::time::Duration;

use async_map_task::restate::Restate;
use async_map_task::{AsyncMapTask, ConfigError};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

/// Prints the SHA-256 of every file in a tree, read by the workers of a Restate server. A bearer token is taken from
/// RESTATE_AUTH_TOKEN.
#[derive(Debug, Parser)]
#[command(name = "restate_map")]
pub(crate) struct Arguments {
    /// The tree: what the workers have as their folder
    pub(crate) dir: PathBuf,
    /// The URL of the server's ingress
    #[arg(long, default_value = "http://localhost:8080")]
    ingress: String,
    /// The URL of the server's admin API; without it, what runs when this ends early runs on
    #[arg(long)]
    admin: Option<String>,
    /// The id of the run: the same id goes on, a new one reads everything [default: a random one]
    #[arg(long)]
    pub(crate) run_id: Option<String>,
    /// How many files are under way at once, on all workers together
    #[arg(long, default_value_t = 32)]
    concurrency: usize,
    /// How many seconds one attempt at a file may take, with the wait for a worker that is free
    #[arg(long, default_value_t = 3600)]
    timeout: u64,
    /// How many files may fail
    #[arg(long, default_value_t = 0)]
    max_failures: usize,
}

impl Arguments {
    /// What they ask for, or the end of the program: a value that is refused is an error like any other here.
    pub(crate) fn task_and_engine(&self) -> (AsyncMapTask, Restate) {
        self.build().unwrap_or_else(|error| Self::command().error(ErrorKind::ValueValidation, error).exit())
    }

    fn build(&self) -> Result<(AsyncMapTask, Restate), ConfigError> {
        let task = AsyncMapTask::builder()
            .name("restate_map")
            .concurrency(self.concurrency)
            .retries(2)
            // A call that nobody answers any more, because it was paused in the engine, is noticed by this alone.
            .timeout_per_attempt(Duration::from_secs(self.timeout))
            .max_failures(self.max_failures)
            .build()?;
        // A worker that only reads has nothing to undo, so it need not be given time.
        let mut engine = Restate::builder(&self.ingress).kill_after(Duration::ZERO);
        if let Some(admin) = &self.admin {
            engine = engine.admin(admin);
        }
        // As an argument, it would be seen by everybody who lists the processes.
        if let Ok(token) = std::env::var("RESTATE_AUTH_TOKEN") {
            engine = engine.bearer_token(token);
        }
        Ok((task, engine.build()?))
    }
}
