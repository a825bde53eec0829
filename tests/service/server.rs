//! The example as a separate process, and the requests of a client.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, sleep};

/// The maximum time for anything that should happen soon.
const SOON: Duration = Duration::from_secs(15);

/// A running service, which is killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    pub(crate) origin: String,
}

/// The state of the service, as an operator sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) in_use: u64,
    pub(crate) permits: u64,
    pub(crate) alive: u64,
    pub(crate) kept: u64,
    pub(crate) tasks: u64,
}

impl Server {
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        Self::start_with_log(arguments, "error", Stdio::inherit()).await
    }

    pub(crate) async fn start_with_log(arguments: &[&str], level: &str, log: Stdio) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_axum_service"))
            .args(["--listen", "127.0.0.1:0", "--log", level])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = out.next_line().await.unwrap().expect("the service says where it listens");
        let origin = first.strip_prefix("listening on ").expect("an address").to_owned();
        Self { child, out, origin }
    }

    /// Uses a separate connection, so that the request does not affect the counts.
    pub(crate) async fn health(&self) -> Health {
        let health = self.get("/health").await;
        let number = |pointer: &str| health.pointer(pointer).and_then(Value::as_u64).unwrap();
        Health {
            in_use: number("/limiter/in_use"),
            permits: number("/limiter/permits"),
            alive: number("/jobs/alive"),
            kept: number("/jobs/kept"),
            tasks: number("/tasks"),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        json(client().get(self.url(path)).send().await.unwrap(), StatusCode::OK).await
    }

    pub(crate) async fn post(&self, path: &str) -> Value {
        json(client().post(self.url(path)).send().await.unwrap(), StatusCode::OK).await
    }

    /// Starts a job, and returns its id.
    pub(crate) async fn start_job(&self, order: &Value) -> String {
        let job = client().post(self.url("/jobs")).json(order).send().await.unwrap();
        json(job, StatusCode::CREATED).await["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// The address of the service, for connections that are not of a client.
    pub(crate) fn address(&self) -> &str {
        self.origin.strip_prefix("http://").unwrap()
    }

    /// The resident memory in KiB, as the kernel counts it.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The maximum of the resident memory in KiB since the start.
    pub(crate) fn peak_kib(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// The number of open files, which includes the connections.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id().unwrap())).unwrap().count()
    }

    /// Sends SIGTERM, and waits for the end.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
        tokio::time::timeout(SOON, self.child.wait()).await.expect("the service ends soon").unwrap()
    }

    pub(crate) async fn next_line(&mut self) -> Option<String> {
        self.out.next_line().await.unwrap()
    }
}

/// A client with no connection yet.
pub(crate) fn client() -> Client {
    Client::builder().no_proxy().timeout(Duration::from_secs(50)).build().unwrap()
}

pub(crate) async fn json(response: Response, expected: StatusCode) -> Value {
    let status = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(status, expected, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// Repeats a request until the answer is accepted.
pub(crate) async fn until<T: std::fmt::Debug>(
    what: &str,
    mut ask: impl AsyncFnMut() -> T,
    mut will_do: impl FnMut(&T) -> bool,
) -> T {
    let end = Instant::now() + SOON;
    loop {
        let found = ask().await;
        if will_do(&found) {
            return found;
        }
        assert!(Instant::now() < end, "{what} within {SOON:?}, found {found:?}");
        sleep(Duration::from_millis(20)).await;
    }
}
