//! The arguments, and the task that is built from them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use async_map_task::{AsyncMapTask, ConfigError};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::picture::pictures_in;
use crate::samples::make_samples;

const SAMPLES: &str = "target/resize_images/raw";
const RESIZED_SAMPLES: &str = "target/resize_images/resized";

/// Resizes the PNG and JPEG files of a folder. The centre of each picture is cropped to the new aspect ratio.
#[derive(Debug, Parser)]
#[command(name = "resize_images")]
pub(crate) struct Arguments {
    /// The folder with the pictures [default: target/resize_images/raw, created if missing]
    #[arg(requires = "output")]
    input: Option<PathBuf>,
    /// The folder for the resized pictures, created if missing [default: target/resize_images/resized]
    output: Option<PathBuf>,
    /// The new width in pixels
    #[arg(long, default_value_t = 224, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    width: u32,
    /// The new height in pixels
    #[arg(long, default_value_t = 224, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    height: u32,
    /// Maximum number of pictures that are resized at once [default: one for each core]
    #[arg(long)]
    concurrency: Option<usize>,
    /// Maximum number of retries of a picture that could not be read or written
    #[arg(long, default_value_t = 3)]
    retries: u32,
    /// Minimum ratio of the pictures that must succeed, between 0 and 1
    #[arg(long, default_value_t = 0.95)]
    min_success_ratio: f64,
}

impl Arguments {
    pub(crate) fn task(&self) -> AsyncMapTask {
        self.build().unwrap_or_else(|error| refuse(error.into()))
    }

    fn build(&self) -> Result<AsyncMapTask, ConfigError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        AsyncMapTask::builder()
            .name("resize_images")
            .concurrency(self.concurrency.unwrap_or(cores))
            .retries(self.retries)
            .retry_delay(Duration::from_millis(200))
            .min_success_ratio(self.min_success_ratio)
            // Threads cannot be stopped, so running pictures are finished, whatever stops the run.
            .cancel_grace(Duration::from_secs(10))
            .build()
    }

    pub(crate) fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Returns the pictures, and the output folder. That folder exists and is not the input folder.
    pub(crate) fn pictures(&self) -> (Vec<PathBuf>, PathBuf) {
        self.find().unwrap_or_else(|error| refuse(error))
    }

    fn find(&self) -> anyhow::Result<(Vec<PathBuf>, PathBuf)> {
        let input = self.input.as_deref().unwrap_or(Path::new(SAMPLES));
        if self.input.is_none() && !input.exists() {
            make_samples(input).with_context(|| format!("cannot make {SAMPLES}"))?;
        }
        let pictures =
            pictures_in(input).with_context(|| format!("cannot list the folder {}", input.display()))?;
        let output = self.output.as_deref().unwrap_or(Path::new(RESIZED_SAMPLES));
        fs::create_dir_all(output).with_context(|| format!("cannot make the folder {}", output.display()))?;
        let is_same = input.canonicalize()? == output.canonicalize()?;
        ensure!(!is_same, "the output folder {} must not be the input folder", input.display());
        Ok((pictures, output.to_owned()))
    }
}

/// Ends the program. Invalid arguments are reported like any other error in them.
fn refuse(error: anyhow::Error) -> ! {
    Arguments::command().error(ErrorKind::ValueValidation, format!("{error:#}")).exit()
}
