//! The arguments: the commands, and the task that is built from them.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use async_map_task::{AsyncMapTask, ConfigError};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::command::ShellCommand;

/// Runs several shell commands at once, and prints their output in the order of the commands.
#[derive(Debug, Parser)]
#[command(name = "run_commands", after_help = MORE)]
pub(crate) struct Arguments {
    /// Maximum number of commands that run at once [default: one for each core]
    #[arg(short, long, value_name = "NUMBER")]
    jobs: Option<NonZeroUsize>,
    /// Time limit of one attempt at a command [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// Time between SIGTERM and SIGKILL for a command that has to stop
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "2")]
    grace: Duration,
    /// Maximum number of retries of a command
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    retries: u32,
    /// Stop at the first command that fails
    #[arg(long)]
    fail_fast: bool,
    /// A shell command, run once for each argument; {} stands for the argument and needs no quotes,
    /// and without {} the argument comes last [default: the lines of standard input are commands]
    #[arg(value_name = "COMMAND")]
    template: Option<String>,
    /// The arguments that the command is run for [default: the lines of standard input]
    arguments: Vec<OsString>,
}

const MORE: &str = "\
The first Ctrl-C stops the commands and prints the summary, a second one kills them.

Exit codes:
  0    all commands succeeded
  1    at least one command failed or did not run
  2    the arguments are wrong
  130  a second Ctrl-C killed the commands

Examples:
  run_commands --jobs 4 --timeout 60 --retries 1 'gzip -k {}' *.log
  find . -name '*.flac' | run_commands 'flac --test --silent'
  run_commands <commands.txt";

impl Arguments {
    pub(crate) fn task(&self) -> AsyncMapTask {
        self.build().unwrap_or_else(|error| refuse(error))
    }

    pub(crate) fn commands(&mut self) -> Vec<ShellCommand> {
        let mut arguments = std::mem::take(&mut self.arguments);
        if arguments.is_empty() {
            arguments = lines_of_stdin()
                .unwrap_or_else(|error| refuse(format!("cannot read the standard input: {error}")));
        }
        let commands = arguments.into_iter().map(|argument| match &self.template {
            Some(template) => ShellCommand::with_argument(template, argument),
            None => ShellCommand::new(argument),
        });
        commands.collect()
    }

    fn build(&self) -> Result<AsyncMapTask, ConfigError> {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let builder = AsyncMapTask::builder()
            .name("run_commands")
            .concurrency(self.jobs.unwrap_or(cores).get())
            .retries(self.retries)
            .cancel_grace(self.grace);
        // By default a command that fails does not stop the others.
        let builder = if self.fail_fast { builder.fail_fast(true) } else { builder.min_success_ratio(0.0) };
        match self.timeout {
            Some(limit) => builder.timeout_per_attempt(limit).build(),
            None => builder.build(),
        }
    }
}

/// Ends the program. Invalid arguments are reported like any other error in them.
fn refuse(error: impl Display) -> ! {
    Arguments::command().error(ErrorKind::ValueValidation, error).exit()
}

/// Parses seconds in the format of `timeout` of the coreutils: `2`, `0.5` and `2s`.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.strip_suffix('s').unwrap_or(text).parse().map_err(|_| "not a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Splits bytes into lines, because a file name need not be UTF-8. Blank lines are ignored.
fn lines_of_stdin() -> io::Result<Vec<OsString>> {
    let mut text = Vec::new();
    io::stdin().lock().read_to_end(&mut text)?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    Ok(lines.map(|line| OsString::from_vec(line.to_vec())).collect())
}
