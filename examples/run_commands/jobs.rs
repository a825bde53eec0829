//! The run over the commands, and what it prints.

use std::process::Output;

use anyhow::Context;
use async_map_task::{AsyncMapTask, ItemError, ItemOutcome};
use clap::Parser;
use tokio::io::{self, AsyncWriteExt};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::arguments::Arguments;
use crate::command::{CommandError, ShellCommand};

/// Runs the commands of the arguments, and ends the program.
pub(crate) async fn run_all() -> io::Result<()> {
    let mut arguments = Arguments::parse();
    let task = arguments.task();
    let commands = arguments.commands();
    let interrupts = Interrupts::listen()?;

    let stop = CancellationToken::new();
    let code = tokio::select! {
        biased;
        all_well = run(&task, &commands, stop.clone()) => i32::from(!all_well),
        // The run was dropped before, and with it all running commands.
        () = interrupts.twice(&stop) => 130,
    };
    // A return would wait for output that is not read.
    std::process::exit(code)
}

/// Runs the commands and prints their output. Returns `true` if all have succeeded.
async fn run(task: &AsyncMapTask, commands: &[ShellCommand], stop: CancellationToken) -> bool {
    let run = task
        .over(commands)
        .map_with_context(|cx, command| async move { command.run(cx.cancellation_token()).await })
        .retry_if(|error| error.may_pass())
        .cancellation_token(stop)
        .ordered()
        .try_for_each(|outcome| print(commands, outcome));
    let (summary, failure) = match run.await {
        Ok(summary) => (summary, None),
        Err(error) => (error.summary().clone(), Some(anyhow::Error::from(error))),
    };
    if let Some(failure) = &failure {
        print_error(format!("{failure:#}\n").as_bytes()).await;
    }
    print_error(format!("{summary}\n").as_bytes()).await;
    failure.is_none() && summary.failures == 0
}

/// Prints the stdout and the stderr of a command. If it failed, the error replaces stderr.
async fn print(
    commands: &[ShellCommand],
    ItemOutcome { index, result, .. }: ItemOutcome<Output, CommandError>,
) -> anyhow::Result<()> {
    let Some(command) = commands.get(index) else { return Ok(()) };
    let (stdout, stderr) = match result {
        Ok(output) => (output.stdout, output.stderr),
        Err(error) => {
            let message = format!("{command}: {error}\n");
            (stdout_of(error), message.into_bytes())
        }
    };
    print_error(&stderr).await;
    let mut out = io::stdout();
    out.write_all(&stdout).await.context("cannot print the output")?;
    out.flush().await.context("cannot print the output")
}

/// An error is ignored: stderr may be closed.
async fn print_error(text: &[u8]) {
    let mut err = io::stderr();
    let _ = err.write_all(text).await;
    let _ = err.flush().await;
}

fn stdout_of(error: ItemError<CommandError>) -> Vec<u8> {
    match error {
        ItemError::Failed { error: CommandError::Unsuccessful(output), .. } => output.stdout,
        _ => Vec::new(),
    }
}

/// Ctrl-C, and the two other signals by which a user or a terminal ends a program. The commands do not get them,
/// because they have groups of their own.
struct Interrupts([Signal; 3]);

impl Interrupts {
    fn listen() -> io::Result<Self> {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    /// The first signal stops the run with its grace. The future ends at the second one.
    async fn twice(mut self, stop: &CancellationToken) {
        self.once().await;
        stop.cancel();
        self.once().await;
    }

    async fn once(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            biased;
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
