//! The arguments, and the limits that are built from them.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_map_task::{AsyncMapTask, ConfigError, KeyedLimiter, Limiter};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, value_parser};
use reqwest::Url;

const SECOND: Duration = Duration::from_secs(1);

/// Checks the links of web sites. Pages of the given hosts are searched for links; pages of other hosts are only
/// requested.
#[derive(Debug, Parser)]
#[command(name = "link_checker", after_help = MORE)]
pub(crate) struct Arguments {
    /// Where to start, for example http://localhost:8000/ [default: a site that the example serves itself]
    #[arg(value_name = "URL", value_parser = http_url)]
    urls: Vec<Url>,
    /// Maximum number of pages that are checked
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    max_pages: u32,
    /// Maximum number of requests at once
    #[arg(long, value_name = "NUMBER", default_value_t = 16, value_parser = value_parser!(u16).range(1..))]
    concurrency: u16,
    /// Maximum number of requests at once to one host
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = value_parser!(u16).range(1..))]
    per_host: u16,
    /// Maximum number of requests per second
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = value_parser!(u32).range(1..))]
    rate: u32,
    /// Maximum number of requests per second to one host
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = value_parser!(u32).range(1..))]
    host_rate: u32,
    /// Time limit of one request [default: 10, and 2 for the site of the example]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// Maximum number of retries of a page that could not be checked
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    retries: u32,
    /// Write a page about the run to this file
    #[arg(long, value_name = "HTML")]
    report: Option<PathBuf>,
}

const MORE: &str = "\
The first Ctrl-C lets running requests finish and prints the report, a second one cancels them.

Exit codes:
  0    no link is broken
  1    at least one link is broken
  2    the arguments are wrong
  130  Ctrl-C has ended the check";

impl Arguments {
    pub(crate) fn urls(&self) -> &[Url] {
        &self.urls
    }

    /// Returns the file for the page about the run.
    pub(crate) fn report(&self) -> Option<&Path> {
        self.report.as_deref()
    }

    pub(crate) fn max_pages(&self) -> usize {
        self.max_pages as usize
    }

    pub(crate) fn per_host(&self) -> usize {
        self.per_host.into()
    }

    /// Returns the limit of each host.
    pub(crate) fn hosts(&self) -> KeyedLimiter<String> {
        let hosts = KeyedLimiter::builder().permits(self.per_host()).rate(self.host_rate, SECOND);
        hosts.build().unwrap_or_else(|error| refuse(format!("--host-rate: {error}")))
    }

    pub(crate) fn task(&self) -> AsyncMapTask {
        let all = Limiter::builder().rate(self.rate, SECOND).build();
        let all = all.unwrap_or_else(|error| refuse(format!("--rate: {error}")));
        self.build(&all).unwrap_or_else(|error| refuse(error))
    }

    fn build(&self, all: &Limiter) -> Result<AsyncMapTask, ConfigError> {
        let default_timeout = if self.urls.is_empty() { 2 } else { 10 };
        AsyncMapTask::builder()
            .name("link_checker")
            .concurrency(self.concurrency.into())
            .limiter(all)
            // Links to a slow host wait here, so that those to other hosts can be reached.
            .look_ahead(self.max_pages())
            .timeout_per_attempt(self.timeout.unwrap_or(Duration::from_secs(default_timeout)))
            .retries(self.retries)
            .retry_delay(Duration::from_millis(200))
            // Broken links are what the report is about.
            .allow_failures()
            .build()
    }
}

/// Ends the program. Invalid arguments are reported like any other error in them.
fn refuse(error: impl Display) -> ! {
    Arguments::command().error(ErrorKind::ValueValidation, error).exit()
}

fn http_url(text: &str) -> Result<Url, String> {
    match Url::parse(text) {
        // Without TLS the example needs no certificates and stays small.
        Ok(url) if url.scheme() == "http" => Ok(url),
        Ok(url) => Err(format!("the scheme must be http, got {}", url.scheme())),
        Err(error) => Err(error.to_string()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "not a number of seconds")?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(Duration::ZERO) => Err(String::from("must be above 0")),
        Ok(seconds) => Ok(seconds),
        Err(error) => Err(error.to_string()),
    }
}
