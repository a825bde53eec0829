//! A PostgreSQL server for the tests.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};

use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// A running server with its data in a temporary folder, reached through a Unix socket in it.
pub(crate) struct Cluster {
    folder: String,
    databases: AtomicU32,
    script: Mutex<Script>,
}

/// `cluster.sh`, which stops the server when this process ends for any reason, because its end of the pipe is then closed.
struct Script {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// The server of all tests that do not restart it.
pub(crate) fn shared() -> &'static Cluster {
    static SHARED: LazyLock<Cluster> = LazyLock::new(Cluster::start);
    &SHARED
}

impl Cluster {
    /// Blocks for about a second.
    pub(crate) fn start() -> Self {
        let mut command = unprivileged("sh");
        command.args(["-c", include_str!("cluster.sh"), "cluster.sh"]).arg(programs());
        // In its own process group, so that after an interrupt from the keyboard it has time to clean up.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).current_dir("/");
        let mut child = command.spawn().expect("sh, and as root setpriv, are there");
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut script = Script { child, orders, answers };
        let folder = script.answer();
        Self { folder, databases: AtomicU32::new(0), script: Mutex::new(script) }
    }

    /// The URL of a new database.
    pub(crate) async fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut connection = PgConnection::connect(&self.url("postgres")).await.unwrap();
        let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(create).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        self.url(&name)
    }

    /// Ends the server as a crash does, without a checkpoint, and starts it. Blocks until it is back.
    pub(crate) fn restart_immediate(&self) {
        self.order("restart");
    }

    /// Stops all processes of the server at once. Connections stay open, and nothing answers.
    pub(crate) fn suspend(&self) {
        self.order("suspend");
    }

    /// Resumes a suspended server.
    pub(crate) fn resume(&self) {
        self.order("resume");
    }

    fn order(&self, order: &str) {
        let mut script = self.script.lock().unwrap();
        writeln!(script.orders.as_mut().unwrap(), "{order}").unwrap();
        assert_eq!(script.answer(), self.folder);
    }

    /// The folder of its socket.
    pub(crate) fn folder(&self) -> &str {
        &self.folder
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://tests@localhost/{database}?host={}", self.folder)
    }
}

impl Script {
    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the server did not start; what it said stands above");
        line.trim_end().to_owned()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.child.wait();
    }
}

/// Servers refuse to run as root.
pub(crate) fn unprivileged(program: &str) -> Command {
    let id = Command::new("id").arg("-u").output().expect("id is there");
    if id.stdout.trim_ascii() != b"0" {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=65534", "--clear-groups", program]);
    command
}

/// The folder of the server's programs: the one on the `PATH`, or the newest in Debian's location.
fn programs() -> PathBuf {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let mut debian: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|version| {
            let path = version.ok()?.path();
            Some((path.file_name()?.to_str()?.parse().ok()?, path.join("bin")))
        })
        .collect();
    debian.sort();
    let debian = debian.into_iter().rev().map(|(_, path)| path);
    let has_all =
        |path: &PathBuf| ["initdb", "pg_ctl"].iter().all(|name| Path::new(path).join(name).is_file());
    std::env::split_paths(&on_path).chain(debian).find(has_all).expect(
        "these tests need a PostgreSQL server: initdb and pg_ctl were found neither on PATH nor in \
         /usr/lib/postgresql/*/bin; install it, on Debian by `apt-get install postgresql`",
    )
}
