//! A program that a test starts: before, while and after it runs.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Sandbox;

/// A program that has not started yet. Its output goes to files of the sandbox, and its input is empty.
pub(crate) struct Program<'s> {
    sandbox: &'s Sandbox,
    command: Command,
    out: PathBuf,
    err: PathBuf,
}

impl<'s> Program<'s> {
    pub(crate) fn new(sandbox: &'s Sandbox, mut command: Command) -> Self {
        let number = sandbox.programs.replace(sandbox.programs.get() + 1);
        let folder = sandbox.folder("programs");
        let [out, err] = ["out", "err"].map(|kind| folder.join(format!("{number}.{kind}")));
        command.stdin(Stdio::null()).stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        Self { sandbox, command, out, err }.env("LC_ALL", "C")
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets the folder in which it runs.
    pub(crate) fn folder(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Runs it as another user, which only root may do.
    pub(crate) fn user(mut self, id: u32) -> Self {
        self.command.uid(id);
        self
    }

    /// Sets its standard input.
    pub(crate) fn input(mut self, input: impl AsRef<[u8]>) -> Self {
        let file = self.out.with_extension("in");
        fs::write(&file, input).unwrap();
        self.command.stdin(File::open(file).unwrap());
        self
    }

    /// Sets its standard output, instead of a file.
    pub(crate) fn stdout(mut self, out: impl Into<Stdio>) -> Self {
        self.command.stdout(out);
        self
    }

    /// Sets its standard error, instead of a file.
    pub(crate) fn stderr(mut self, err: impl Into<Stdio>) -> Self {
        self.command.stderr(err);
        self
    }

    /// Sets its standard output to a disk without space.
    pub(crate) fn with_full_disk(self) -> Self {
        self.stdout(File::create("/dev/full").unwrap())
    }

    #[track_caller]
    pub(crate) fn start(mut self) -> Running<'s> {
        let child = self.command.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", self.command));
        let what = format!("{:?}", self.command);
        Running { sandbox: self.sandbox, child, what, out: self.out, err: self.err }
    }

    /// Runs it to its end.
    #[track_caller]
    pub(crate) fn run(self) -> Ended {
        self.start().end()
    }
}

/// A running program. It is killed when this is dropped.
pub(crate) struct Running<'s> {
    sandbox: &'s Sandbox,
    child: Child,
    what: String,
    out: PathBuf,
    err: PathBuf,
}

impl Running<'_> {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Returns its output so far.
    pub(crate) fn out(&self) -> Vec<u8> {
        fs::read(&self.out).unwrap()
    }

    /// Returns its standard error so far.
    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap()).into_owned()
    }

    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap_or_else(|error| panic!("{}: {error}", self.what));
    }

    /// Waits until the condition holds, and fails if the program ends before that.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let mut found = false;
        let is_over = self.sandbox.time_limit.comes(|| {
            // The order matters: the test may wait for the last action of the program.
            let has_ended = self.has_ended();
            found = is_so(self);
            found || has_ended
        });
        let why = if is_over { "it has ended" } else { "the time is over" };
        assert!(found, "{why} before this: {what}\n{}", self.story());
    }

    #[track_caller]
    pub(crate) fn until_err_has(&mut self, text: &str) {
        self.until(text, |program| program.err().contains(text));
    }

    /// Waits until it has written nothing to its standard error for a second.
    #[track_caller]
    pub(crate) fn until_silent(&mut self) {
        let mut last = (self.err(), Instant::now());
        self.until("a second without a line", |program| {
            let err = program.err();
            if err != last.0 {
                last = (err, Instant::now());
            }
            last.1.elapsed() >= Duration::from_secs(1)
        });
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ended {
        let has_ended = self.sandbox.time_limit.comes(|| self.has_ended());
        assert!(has_ended, "it does not end\n{}", self.story());
        let status = self.child.wait().unwrap();
        Ended { status, what: self.what.clone(), out: self.out(), err: self.err() }
    }

    /// Sends SIGINT repeatedly, until it has ended. Two signals at one moment could be taken for one.
    #[track_caller]
    pub(crate) fn interrupt_until_it_ends(mut self) -> Ended {
        let sandbox = self.sandbox;
        while !self.has_ended() {
            self.signal(Signal::INT);
            let sent = Instant::now();
            sandbox.until("the end, or the next signal", || {
                self.has_ended() || sent.elapsed() > Duration::from_millis(100)
            });
        }
        self.end()
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    fn story(&self) -> String {
        story(&self.what, &self.out(), &self.err())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that has ended, and its output.
pub(crate) struct Ended {
    status: ExitStatus,
    what: String,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Ended {
    pub(crate) fn succeeds(&self) -> bool {
        self.status.success()
    }

    #[track_caller]
    pub(crate) fn exits(&self, code: i32) -> &Self {
        self.check(self.status.code() == Some(code), format_args!("it exits with {code}"))
    }

    #[track_caller]
    pub(crate) fn is_killed_by(&self, signal: Signal) -> &Self {
        self.check(self.status.signal() == Some(signal.as_raw()), format_args!("{signal:?} kills it"))
    }

    #[track_caller]
    pub(crate) fn out_is(&self, expected: impl AsRef<[u8]>) -> &Self {
        let expected = expected.as_ref();
        let text = excerpt(expected);
        self.check(self.out == expected, format_args!("it has this output:\n{text}"))
    }

    #[track_caller]
    pub(crate) fn out_has(&self, text: &str) -> &Self {
        self.check(self.text().contains(text), format_args!("its output has `{text}`"))
    }

    #[track_caller]
    pub(crate) fn err_has(&self, text: &str) -> &Self {
        self.check(self.err.contains(text), format_args!("its standard error has `{text}`"))
    }

    #[track_caller]
    pub(crate) fn err_lacks(&self, text: &str) -> &Self {
        self.check(!self.err.contains(text), format_args!("its standard error does not have `{text}`"))
    }

    /// Checks that it refuses its arguments: it exits with 2, prints the reason to its standard error, and prints no
    /// output.
    #[track_caller]
    pub(crate) fn is_refused(&self, why: &str) -> &Self {
        self.exits(2).err_has(why).out_is("")
    }

    pub(crate) fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.out)
    }

    #[track_caller]
    pub(crate) fn check(&self, is_so: bool, what: impl std::fmt::Display) -> &Self {
        assert!(is_so, "required: {what}\nbut: {}\n{}", self.status, story(&self.what, &self.out, &self.err));
        self
    }
}

/// Describes a program, with the first lines of its output.
fn story(what: &str, out: &[u8], err: &str) -> String {
    let mut story = what.to_owned();
    for (kind, text) in [("stdout", excerpt(out)), ("stderr", excerpt(err.as_bytes()))] {
        for line in text.lines() {
            write!(story, "\n  {kind}: {line}").unwrap();
        }
    }
    story
}

fn excerpt(text: &[u8]) -> String {
    const MOST_LINES: usize = 20;
    let text = String::from_utf8_lossy(text);
    let lines: Vec<_> = text.lines().take(MOST_LINES).collect();
    let more = if lines.len() < text.lines().count() { "\n..." } else { "" };
    lines.join("\n") + more
}
