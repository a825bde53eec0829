//! A durable run in a process that is killed again and again: the example `resume_batch`, which verifies files.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::LazyLock;
use std::{env, process};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;

use crate::table::Facts;

const FILES: usize = 2_000;

/// Long names fill the pipe soon.
static PADDING: LazyLock<String> = LazyLock::new(|| "x".repeat(150));

/// The lines of new files after which a process is killed. The pipe to it has room for some hundred lines, and so has the
/// run. So a process is still running when its line is read: there are more files.
const LINES: [usize; 3] = [1, 300, 300];

/// Builds the example. Cargo does nothing if it has been built before.
pub(crate) async fn build() -> Result<PathBuf> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    // Cargo describes this package to its program. The build scripts of some crates would take that for a change.
    let describes = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(describes)) {
        cargo.env_remove(name);
    }
    cargo.args(["build", "--features", "sqlite", "--example", "resume_batch"]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit());
    let built = cargo.output().await.context("cannot start cargo")?;
    ensure!(built.status.success(), "resume_batch cannot be built");
    let binary = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    };
    let messages = String::from_utf8(built.stdout)?;
    messages.lines().find_map(binary).context("cargo does not name the binary of resume_batch")
}

/// Kills the process three times, and lets the fourth one end. A file that was reported as verified is changed while no
/// process runs: it would fail if it were read again.
pub(crate) async fn killed(resume_batch: PathBuf) -> Result<Facts> {
    let batch = Batch::create(resume_batch)?;
    let (mut reported, mut unknown, mut killed, mut moments) = (0, 0, 0, Vec::new());
    for lines in LINES {
        let mut session = batch.start().await?;
        let known = session.known;
        unknown += reported - known.min(reported);
        session.read(known + lines).await?;
        killed += usize::from(session.kill().await?);
        // The pipe still has lines of the process.
        reported = session.read(FILES).await?;
        batch.change(reported)?;
        moments.push(reported);
    }
    let mut session = batch.start().await?;
    let known = session.known;
    unknown += reported - known.min(reported);
    let verified = session.read(FILES).await?;
    let (code, account) = session.end().await?;
    let recovered = number_before(&account, " recovered");
    Ok(Facts::default()
        .equal(&format!("processes killed, after {moments:?} of {FILES} files"), killed, LINES.len())
        .equal("files in order and verified in the end", verified, FILES)
        .equal("exit code", code.unwrap_or(-1), 0)
        .equal("reported files that the next process did not know", unknown, 0)
        .equal("files from earlier processes in the last one", recovered.unwrap_or_default(), known))
}

/// Two thousand small files and the list of their checksums, in a folder that is removed in the end.
struct Batch {
    resume_batch: PathBuf,
    folder: PathBuf,
    files: Vec<PathBuf>,
}

impl Batch {
    fn create(resume_batch: PathBuf) -> Result<Self> {
        let folder = env::temp_dir().join(format!("async-map-task-proof-{}", process::id()));
        let file = |number: usize| folder.join(format!("{number:04}-{}", *PADDING));
        let batch = Self { resume_batch, files: (0..FILES).map(file).collect(), folder: folder.clone() };
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let mut list = String::new();
        for (number, path) in batch.files.iter().enumerate() {
            let content = format!("file {number}\n");
            fs::write(path, &content)?;
            let sum = Sha256::digest(&content);
            sum.iter().for_each(|byte| list += &format!("{byte:02x}"));
            list += &format!("  {}\n", path.display());
        }
        fs::write(folder.join("sums"), list)?;
        Ok(batch)
    }

    /// Starts the example, and waits until it has printed the state of the run. It may wait two
    /// seconds then, until the lease of a killed process has expired.
    async fn start(&self) -> Result<Session<'_>> {
        let mut command = Command::new(&self.resume_batch);
        command.arg(self.folder.join("sums")).arg("--store").arg(self.folder.join("runs.db"));
        command.args(["--run", "proof", "--lease", "2", "--concurrency", "4"]).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start resume_batch")?;
        let out = child.stdout.take().context("resume_batch has no output")?;
        let mut err = BufReader::new(child.stderr.take().context("resume_batch has no stderr")?);
        let mut state = String::new();
        err.read_line(&mut state).await?;
        let known = if state.trim_end().ends_with(": new") {
            0
        } else {
            number_before(&state, " files verified").with_context(|| format!("no state: {state}"))?
        };
        let err = tokio::spawn(async move {
            let mut rest = String::new();
            err.read_to_string(&mut rest).await.map(|_| rest)
        });
        Ok(Session { batch: self, child, out: BufReader::new(out).lines(), err, known, read: 0 })
    }

    /// Changes the first files.
    fn change(&self, count: usize) -> Result<()> {
        self.files.iter().take(count).try_for_each(|path| Ok(fs::write(path, "changed\n")?))
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // Nothing depends on it.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A process of the example. It is killed when this is dropped.
struct Session<'a> {
    batch: &'a Batch,
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    err: JoinHandle<std::io::Result<String>>,
    /// The files that earlier processes have verified, by the store.
    known: usize,
    read: usize,
}

impl Session<'_> {
    /// Reads the output to this line, or to its end. Each line must be that of the next file, and report it as verified.
    /// Returns the number of lines.
    async fn read(&mut self, to: usize) -> Result<usize> {
        while self.read < to {
            let Some(line) = self.out.next_line().await? else { break };
            let file = self.batch.files.get(self.read).context("more lines than files")?;
            let is_verified = line == format!("{}: OK", file.display());
            ensure!(is_verified, "line {}: {}", self.read + 1, line.replace(&*PADDING, "..."));
            self.read += 1;
        }
        Ok(self.read)
    }

    /// Kills the process, and returns `true` if it was still running.
    async fn kill(&mut self) -> Result<bool> {
        let is_running = self.child.try_wait()?.is_none();
        self.child.start_kill()?;
        let status = self.child.wait().await?;
        // A process that ended before the signal has an exit code.
        Ok(is_running && (status.code().is_none() || cfg!(windows)))
    }

    /// Waits for the end of the process. Returns its exit code and its last words.
    async fn end(mut self) -> Result<(Option<i32>, String)> {
        let status = self.child.wait().await?;
        Ok((status.code(), self.err.await??))
    }
}

/// Returns the number before a text.
fn number_before(text: &str, what: &str) -> Option<usize> {
    text.split_once(what)?.0.rsplit(' ').next()?.parse().ok()
}
