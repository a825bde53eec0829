//! The arguments, and the task and the engine that are built from them.

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
    /// The folder to hash; it must be the folder of the workers
    pub(crate) dir: PathBuf,
    /// The URL of the server's ingress
    #[arg(long, default_value = "http://localhost:8080")]
    ingress: String,
    /// The URL of the server's admin API; without it, calls that run when this program is stopped are not cancelled
    #[arg(long)]
    admin: Option<String>,
    /// The id of the run; the id of an earlier run continues it, a new id hashes all files [default: a random id]
    #[arg(long)]
    pub(crate) run_id: Option<String>,
    /// Maximum number of files that are hashed at once, on all workers together
    #[arg(long, default_value_t = 32)]
    concurrency: usize,
    /// Time limit of one attempt at a file in seconds, including the wait for a free worker
    #[arg(long, default_value_t = 3600)]
    timeout: u64,
    /// Maximum number of files that may fail
    #[arg(long, default_value_t = 0)]
    max_failures: usize,
}

impl Arguments {
    /// Returns them. A value that is refused ends the program, like any other invalid argument.
    pub(crate) fn task_and_engine(&self) -> (AsyncMapTask, Restate) {
        self.build().unwrap_or_else(|error| Self::command().error(ErrorKind::ValueValidation, error).exit())
    }

    fn build(&self) -> Result<(AsyncMapTask, Restate), ConfigError> {
        let task = AsyncMapTask::builder()
            .name("restate_map")
            .concurrency(self.concurrency)
            .retries(2)
            // Only this limit detects a call that was paused in the engine and is never answered.
            .timeout_per_attempt(Duration::from_secs(self.timeout))
            .max_failures(self.max_failures)
            .build()?;
        // A worker that only reads has nothing to undo, so it needs no grace.
        let mut engine = Restate::builder(&self.ingress).kill_after(Duration::ZERO);
        if let Some(admin) = &self.admin {
            engine = engine.admin(admin);
        }
        // As an argument, it would be visible in the list of processes.
        if let Ok(token) = std::env::var("RESTATE_AUTH_TOKEN") {
            engine = engine.bearer_token(token);
        }
        Ok((task, engine.build()?))
    }
}
