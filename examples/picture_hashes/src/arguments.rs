//! The arguments, and the task and the pictures that are built from them.

use std::path::PathBuf;
use std::time::Duration;

use async_map_task::{AsyncMapTask, ConfigError};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::picture::{Picture, pictures_below};

/// Prints a perceptual hash of each PNG and JPEG file of a tree. Hashes of earlier runs are not computed again.
#[derive(Debug, Parser)]
#[command(name = "picture_hashes")]
pub(crate) struct Arguments {
    /// The folder to search, with its subfolders
    dir: PathBuf,
    /// The SQLite file with the hashes of earlier runs, created if missing
    #[arg(long)]
    pub(crate) store: PathBuf,
    /// The version of the hashes; hashes of other versions are not used
    #[arg(long, default_value = "1")]
    pub(crate) version: String,
    /// Maximum number of pictures that are hashed at once [default: one for each core]
    #[arg(long)]
    concurrency: Option<usize>,
}

impl Arguments {
    pub(crate) fn task(&self) -> AsyncMapTask {
        self.build().unwrap_or_else(|error| refuse(&error.to_string()))
    }

    fn build(&self) -> Result<AsyncMapTask, ConfigError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        AsyncMapTask::builder()
            .name("picture_hashes")
            .concurrency(self.concurrency.unwrap_or(cores))
            // A broken picture is reported and does not stop the others.
            .min_success_ratio(0.0)
            // Threads cannot be stopped, so the running pictures are finished after Ctrl-C, and cached.
            .cancel_grace(Duration::from_secs(10))
            .build()
    }

    pub(crate) fn pictures(&self) -> Vec<Picture> {
        pictures_below(&self.dir)
            .unwrap_or_else(|error| refuse(&format!("cannot list the pictures: {error}")))
    }
}

/// Ends the program. Invalid arguments are reported like any other error in them.
fn refuse(error: &str) -> ! {
    Arguments::command().error(ErrorKind::ValueValidation, error).exit()
}
