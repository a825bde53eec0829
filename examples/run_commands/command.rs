//! One command: the group of its processes, what they write, and how it ends. Nothing here knows of tasks
//! and runs.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::pin::pin;
use std::process::{Command as Blocking, Output, Stdio};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

/// How many bytes a command may write to each of stdout and stderr: they are kept until they are printed.
const MAX_OUTPUT: u64 = 64 << 20;
/// How much of stderr an error shows.
const TAIL_BYTES: usize = 4096;
const TAIL_LINES: usize = 10;

/// A command for `sh`. It displays as the user wrote it.
#[derive(Debug)]
pub(crate) struct ShellCommand {
    name: String,
    script: OsString,
    argument: Option<OsString>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("{}{}", Ending(.0), Tail(&.0.stderr))]
    Unsuccessful(Output),
    #[error("it printed more than {} MiB", MAX_OUTPUT >> 20)]
    TooMuchOutput,
    #[error("cannot be run: {0}")]
    Io(#[from] io::Error),
}

impl ShellCommand {
    pub(crate) fn new(script: OsString) -> Self {
        Self { name: script.to_string_lossy().into_owned(), script, argument: None }
    }

    /// The argument comes to the shell as a parameter, so nothing in it needs to be quoted.
    pub(crate) fn with_argument(template: &str, argument: OsString) -> Self {
        let template = if template.contains("{}") { template } else { &format!("{template} {{}}") };
        Self {
            name: template.replace("{}", &argument.to_string_lossy()),
            script: template.replace("{}", "\"$1\"").into(),
            argument: Some(argument),
        }
    }

    /// Runs the command to its end. Once it is told to stop, its processes get SIGTERM, and what is left of
    /// them gets SIGKILL when they have ended or the future is dropped, whichever comes first.
    ///
    /// Not reached is a process that has made a group of its own, and one that a command, ended by
    /// itself, has left in the background and that writes elsewhere.
    pub(crate) async fn run(&self, stop: &CancellationToken) -> Result<Output, CommandError> {
        let leader = self.spawn()?;
        let id = leader.id();
        let mut output = pin!(output(leader));
        // Dropped before the leader is, while the number is still that of its group.
        let mut group = Group(id);
        let output = tokio::select! {
            biased;
            output = &mut output => output.inspect(|_| group.release())?,
            () = stop.cancelled() => {
                group.terminate().await?;
                output.await?
            }
        };
        if output.status.success() { Ok(output) } else { Err(CommandError::Unsuccessful(output)) }
    }

    fn spawn(&self) -> io::Result<Child> {
        Command::new("sh")
            .args([OsStr::new("-c"), OsStr::new("--"), &self.script, OsStr::new("sh")])
            .args(&self.argument)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}

impl fmt::Display for ShellCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

impl CommandError {
    /// The shell says 126 of what cannot be executed and 127 of what is not there.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unsuccessful(output) => !matches!(output.status.code(), Some(126 | 127)),
            Self::TooMuchOutput => false,
            Self::Io(error) => error.kind() != io::ErrorKind::InvalidInput,
        }
    }
}

async fn output(mut leader: Child) -> Result<Output, CommandError> {
    let (stdout, stderr) = tokio::try_join!(read(leader.stdout.take()), read(leader.stderr.take()))?;
    // Not before the pipes are closed: the number of a process that was waited for is free for another.
    let status = leader.wait().await?;
    Ok(Output { status, stdout, stderr })
}

async fn read(pipe: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>, CommandError> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(MAX_OUTPUT + 1).read_to_end(&mut bytes).await?;
    }
    if bytes.len() as u64 > MAX_OUTPUT { Err(CommandError::TooMuchOutput) } else { Ok(bytes) }
}

/// The processes of a command: the shell and all that it has started. Dropping it kills them.
struct Group(Option<u32>);

impl Group {
    async fn terminate(&self) -> io::Result<()> {
        match self.signal("TERM") {
            Some(kill) => Command::from(kill).status().await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// The command has ended by itself.
    fn release(&mut self) {
        self.0 = None;
    }

    /// A signal to a group is unsafe code or a program of its own; `kill` is a part of every shell.
    fn signal(&self, signal: &str) -> Option<Blocking> {
        let mut kill = Blocking::new("sh");
        kill.args(["-c", "kill -s \"$1\" -- \"-$2\"", "sh", signal, &self.0?.to_string()]);
        kill.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Some(kill)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(mut kill) = self.signal("KILL") {
            // It is waited for, so that nothing is left once the program has ended. Where all have ended
            // already, there is nobody to get the signal: numbers are not given out again so soon.
            let _ = kill.status();
        }
    }
}

/// `exit code 3`, or `signal: 9 (SIGKILL)`.
struct Ending<'a>(&'a Output);

impl fmt::Display for Ending<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.status.code() {
            Some(code) => write!(f, "exit code {code}"),
            None => self.0.status.fmt(f),
        }
    }
}

/// The last lines of what was written to stderr.
struct Tail<'a>(&'a [u8]);

impl fmt::Display for Tail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = self.0.trim_ascii_end();
        let (cut, end) = written.split_at(written.len().saturating_sub(TAIL_BYTES));
        let end = String::from_utf8_lossy(end);
        let mut lines: Vec<_> = end.lines().rev().take(TAIL_LINES + 1).collect();
        if lines.len() > TAIL_LINES {
            lines.truncate(TAIL_LINES);
            lines.push("...");
        } else if !cut.is_empty() {
            lines.push("...");
        }
        match lines.as_slice() {
            [line] => write!(f, ": {line}"),
            lines => lines.iter().rev().try_for_each(|line| write!(f, "\n    {line}")),
        }
    }
}
