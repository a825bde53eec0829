//! One command: its process group, its output, and its end. It does not depend on tasks and runs.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::pin::pin;
use std::process::{Command as Blocking, Output, Stdio};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

/// The maximum number of bytes of stdout and of stderr of a command. They are kept until they are printed.
const MAX_OUTPUT: u64 = 64 << 20;
/// The number of bytes of stderr that an error shows.
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

    /// The shell gets the argument as a parameter, so it needs no quotes.
    pub(crate) fn with_argument(template: &str, argument: OsString) -> Self {
        let template = if template.contains("{}") { template } else { &format!("{template} {{}}") };
        Self {
            name: template.replace("{}", &argument.to_string_lossy()),
            script: template.replace("{}", "\"$1\"").into(),
            argument: Some(argument),
        }
    }

    /// Runs the command to its end. When the attempt is cancelled, its processes get SIGTERM. The remaining ones get
    /// SIGKILL when the command has ended or the future is dropped.
    ///
    /// Two kinds of processes are not reached: those that created a group of their own, and background processes of a
    /// command that has ended, if they write elsewhere.
    pub(crate) async fn run(&self, stop: &CancellationToken) -> Result<Output, CommandError> {
        let leader = self.spawn()?;
        let id = leader.id();
        let mut output = pin!(output(leader));
        // Dropped before the shell is, while the id still belongs to its group.
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
    /// The shell returns 126 for a file that cannot be executed and 127 for one that does not exist.
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
    // Only after the pipes are closed, because the id of a process that was waited for can be reused.
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

/// The processes of a command: the shell and all processes that it has started. Dropping it kills them.
struct Group(Option<u32>);

impl Group {
    async fn terminate(&self) -> io::Result<()> {
        match self.signal("TERM") {
            Some(kill) => Command::from(kill).status().await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// Called when the command has ended.
    fn release(&mut self) {
        self.0 = None;
    }

    /// A signal to a group needs unsafe code or another program. `kill` is part of every shell.
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
            // Waits for `kill`, so that no process is left when the program has ended. If all processes have ended
            // already, no process gets the signal, because ids are not reused so soon.
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

/// Returns the last lines of stderr.
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
