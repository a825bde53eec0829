//! A Restate server for the tests.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::guarded::Guarded;
use crate::ports;
use crate::worker;

/// Longer than any event that a test waits for.
pub(crate) const LONGEST: Duration = Duration::from_secs(60);

/// A server with its data in its own folder, reached on the loopback.
#[derive(Debug)]
pub(crate) struct Server {
    folder: PathBuf,
    ports: [u16; 3],
    pub(crate) process: Mutex<Option<Guarded>>,
}

/// The server of all tests that do not kill it. Its worker is a thread of this process, see [`crate::worker`].
pub(crate) async fn shared() -> &'static Server {
    // It is started by a separate thread, because a runtime cannot block inside another runtime.
    static SHARED: LazyLock<Server> = LazyLock::new(|| {
        let start = async {
            let server = Server::start().await;
            server.register(worker::here()).await;
            server
        };
        let runtime = || tokio::runtime::Runtime::new().unwrap();
        thread::spawn(move || runtime().block_on(start)).join().unwrap()
    });
    tokio::task::spawn_blocking(|| &*SHARED).await.unwrap()
}

impl Server {
    pub(crate) async fn start() -> Self {
        let ports = [ports::free(), ports::free(), ports::free()];
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("restate-{}", ports[0]));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let server = Self { folder, ports, process: Mutex::new(None) };
        server.revive().await;
        server
    }

    /// Starts it on its data and its ports, and waits until it is ready.
    pub(crate) async fn revive(&self) {
        let [ingress, admin, node] = self.ports;
        let mut program = Command::new(program());
        program
            .args(["--bind-ip", "127.0.0.1", "--listen-mode", "tcp", "--no-logo", "--node-name", "test"])
            .args(["--bind-port", &node.to_string(), "--base-dir"])
            .arg(&self.folder)
            .env("TMPDIR", &self.folder) // where it leaves folders when it is killed
            .env("RESTATE_INGRESS__BIND_ADDRESS", format!("127.0.0.1:{ingress}"))
            .env("RESTATE_ADMIN__BIND_ADDRESS", format!("127.0.0.1:{admin}"))
            .env("RESTATE_DEFAULT_NUM_PARTITIONS", "4")
            .env("RESTATE_ROCKSDB_TOTAL_MEMORY_SIZE", "128MB")
            .env("RESTATE_DISABLE_TELEMETRY", "true")
            .env("RESTATE_LOG_FILTER", "error,octocrab=off");
        *self.process.lock().unwrap() = Some(Guarded::start(&program));
        for url in [self.ingress() + "/restate/health", self.admin() + "/health"] {
            let began = Instant::now();
            while !reqwest::get(&url).await.is_ok_and(|reply| reply.status().is_success()) {
                assert!(
                    began.elapsed() < LONGEST,
                    "{url} does not answer; what the server said stands above"
                );
                sleep(Duration::from_millis(10)).await;
            }
        }
        // It is healthy before each of its partitions has a leader.
        let began = Instant::now();
        while self.ask("SELECT id FROM sys_invocation").await.is_err() {
            assert!(began.elapsed() < LONGEST, "the introspection does not answer");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(&self) {
        self.process.lock().unwrap().take().expect("it lives").kill();
    }

    /// Empties its disk, while it is dead.
    pub(crate) fn lose_everything(&self) {
        fs::remove_dir_all(&self.folder).unwrap();
        fs::create_dir_all(&self.folder).unwrap();
    }

    pub(crate) fn ingress(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    pub(crate) fn admin(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[1])
    }

    /// Registers the services of a worker.
    pub(crate) async fn register(&self, worker_port: u16) {
        let uri = format!("http://127.0.0.1:{worker_port}");
        let request = reqwest::Client::new().post(self.admin() + "/deployments").json(&json!({ "uri": uri }));
        let reply = request.send().await.unwrap();
        assert!(reply.status().is_success(), "{}", reply.text().await.unwrap());
    }

    /// Queries the engine's introspection. A server that has just been restarted may fail to answer at first.
    pub(crate) async fn query(&self, sql: &str) -> Vec<Value> {
        let began = Instant::now();
        loop {
            match self.ask(sql).await {
                Ok(rows) => return rows,
                Err(text) => assert!(began.elapsed() < LONGEST, "{sql}: {text}"),
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Returns the rows, or the error.
    async fn ask(&self, sql: &str) -> Result<Vec<Value>, String> {
        let request =
            reqwest::Client::new().post(self.admin() + "/query").header("accept", "application/json");
        let reply = request.json(&json!({ "query": sql })).send().await.unwrap();
        let text = reply.text().await.unwrap();
        let mut answer: Value = serde_json::from_str(&text).unwrap_or_default();
        match answer["rows"].take() {
            Value::Array(rows) => Ok(rows),
            _ => Err(text),
        }
    }

    /// Returns the invocations of a run that have not ended, in any state: scheduled, running, suspended, paused.
    pub(crate) async fn in_flight(&self, run_id: &str) -> Vec<Value> {
        let sql = format!(
            "SELECT id, status, idempotency_key FROM sys_invocation
             WHERE status <> 'completed' AND idempotency_key LIKE '{run_id}.%'"
        );
        self.query(&sql).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.lock().unwrap().take());
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The path at which `tests/all.sh` installs the server.
fn program() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned();
    let package = format!("restate-server-{}-{}", os(), arch());
    let program = target.join("restate/node_modules/@restatedev").join(package).join("bin/restate-server");
    assert!(program.exists(), "{} is missing: tests/all.sh installs it", program.display());
    program
}

/// The name of the operating system for npm.
fn os() -> &'static str {
    if env::consts::OS == "macos" { "darwin" } else { env::consts::OS }
}

/// The name of the architecture for npm.
fn arch() -> &'static str {
    if env::consts::ARCH == "aarch64" { "arm64" } else { "x64" }
}
