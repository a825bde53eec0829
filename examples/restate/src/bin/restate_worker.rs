//! A worker that hashes files for the example `restate_map`. A Restate server calls it, and it returns the SHA-256 of
//! any regular file in one folder. Start any number of workers with access to that folder.
//!
//! ```text
//! cargo run --release -p restate-example --bin restate_worker -- /srv/files --listen 127.0.0.1:9080
//! curl localhost:9070/deployments -H 'content-type: application/json' -d '{"uri": "http://127.0.0.1:9080"}'
//! ```
//!
//! It shows a service with the options that a long run needs, blocking work that ends when its call is killed, failures
//! that the engine does not retry, and an orderly end. At SIGTERM or Ctrl-C, calls have ten seconds to end. The engine
//! then runs the other calls elsewhere. The guide's page `past_one_machine` explains the setup.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use restate_sdk::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

const BUFFER_SIZE: usize = 256 * 1024;

/// Hashes the files of a folder, as a service of a Restate server.
#[derive(Debug, Parser)]
#[command(name = "restate_worker")]
struct Arguments {
    /// The folder that all paths are relative to; files outside it are refused
    root: PathBuf,
    /// The address at which the server reaches this worker
    #[arg(long, default_value = "127.0.0.1:9080")]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() {
    let code = match serve(&Arguments::parse()).await {
        Ok(()) => 0,
        Err(error) => {
            tell(&format!("{error:#}"));
            1
        }
    };
    // A return would wait for all blocking threads, and one of them may hang in a read.
    std::process::exit(code)
}

async fn serve(Arguments { root, listen }: &Arguments) -> Result<()> {
    let root = root.canonicalize().with_context(|| format!("cannot find {}", root.display()))?;
    ensure!(root.is_dir(), "{} is not a folder", root.display());
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // The SDK handles only Ctrl-C by default.
    let stop = async move {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tell(&format!("hashing files of {} on {}", root.display(), listener.local_addr()?));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let service = Checksums { root: root.into(), cores: Semaphore::new(cores) };
    HttpServer::new(Endpoint::builder().bind(service).build()).serve_with_cancel(listener, stop).await;
    Ok(())
}

struct Checksums {
    root: Arc<Path>,
    /// The engine sends any number of calls. Those above this number wait here.
    cores: Semaphore,
}

/// The answer names the file, so that the caller can check it.
#[derive(Debug, Serialize)]
struct Checksum {
    path: PathBuf,
    size: u64,
    sha256: String,
}

// - A run can be continued for a week.
// - A file may take hours. After the inactivity timeout, a minute by default, the engine asks the handler to pause. It
//   cannot pause while it reads, so ten minutes later the engine would start it again.
// - While no worker can be reached, a call waits for about ten minutes and is then killed, which its caller notices. By
//   default it would be paused, which the caller does not notice.
#[service(
    name = "Checksums",
    client_visibility = "pub(crate)",
    idempotency_retention = "7 days",
    inactivity_timeout = "12 hours",
    invocation_retry_policy(
        initial_interval = "100ms",
        factor = 2.0,
        max_interval = "10s",
        max_attempts = 65,
        on_max_attempts = "kill",
    )
)]
impl Checksums {
    /// Returns the size and the SHA-256 of a file.
    #[handler]
    async fn sha256(&self, _ctx: Context<'_>, path: Json<PathBuf>) -> HandlerResult<Json<Checksum>> {
        let Json(path) = path;
        let _core = self.cores.acquire().await?;
        // A call that is killed is dropped here, and its thread then stops reading.
        let stop = CancellationToken::new();
        let _stopped_on_drop = stop.clone().drop_guard();
        // Not in `ctx.run`, which stores a result for later steps: there are none.
        let (root, name) = (Arc::clone(&self.root), path.clone());
        let hashed = spawn_blocking(move || hash(&root, &name, &stop)).await?;
        let (size, sha256) = hashed.map_err(|error| {
            tell(&format!("{}: {error}", path.display()));
            failure(&error)
        })?;
        Ok(Json(Checksum { path, size, sha256 }))
    }
}

/// The caller decides if a file that fails is retried. So this is not one of the errors that the engine retries.
fn failure(error: &io::Error) -> TerminalError {
    let code = match error.kind() {
        ErrorKind::InvalidInput => 400,
        ErrorKind::PermissionDenied => 403,
        ErrorKind::NotFound => 404,
        _ => 500,
    };
    TerminalError::new_with_code(code, error.to_string())
}

/// Returns the size and the checksum. Stops between two pieces after the call was dropped.
fn hash(root: &Path, path: &Path, stop: &CancellationToken) -> io::Result<(u64, String)> {
    let (mut file, mut size, mut sha256) = (open(root, path)?, 0, Sha256::new());
    let mut buffer = vec![0; BUFFER_SIZE];
    while !stop.is_cancelled() {
        match file.read(&mut buffer) {
            Ok(0) => {
                return Ok((size, sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect()));
            }
            Ok(length) => {
                sha256.update(buffer.get(..length).unwrap_or_default());
                size += length as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("stopped"))
}

/// Opens a regular file in the folder. An absolute path, a `..` or a link could lead out of it.
fn open(root: &Path, path: &Path) -> io::Result<File> {
    let path = root.join(path).canonicalize()?;
    if !path.starts_with(root) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not inside the worker's folder"));
    }
    // Opening a pipe would wait for a writer.
    if !path.metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    File::open(path)
}

/// Prints one line on stderr. An error is ignored: stderr may be closed.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
