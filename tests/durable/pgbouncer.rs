//! A PgBouncer for the tests.

use std::fs;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::cluster::{self, Cluster, unprivileged};
use crate::folder::Folder;

/// The number of server sessions that all connections to one database share.
const SESSIONS: u32 = 4;

/// Ends with its standard input, regardless of how the process at the other end ended.
const SCRIPT: &str = "pgbouncer -q \"$1\" & trap 'kill $!' EXIT; read -r _ || true";

/// A running PgBouncer, reached through a socket in the server's own folder.
pub(crate) struct PgBouncer {
    port: u16,
    child: Child,
    input: Option<ChildStdin>,
    _folder: Folder,
}

/// A pooler in transaction mode, in front of the server of all tests that do not restart it.
pub(crate) fn shared() -> &'static PgBouncer {
    static SHARED: LazyLock<PgBouncer> =
        LazyLock::new(|| PgBouncer::start(cluster::shared(), "transaction", 6_432));
    &SHARED
}

impl PgBouncer {
    /// Blocks until it has started.
    pub(crate) fn start(cluster: &Cluster, mode: &str, port: u16) -> Self {
        let (folder, socket) = (Folder::new(), cluster.folder());
        let config = folder.file("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host={socket} user=tests\n[pgbouncer]\nlisten_addr =\nlisten_port = {port}\n\
             unix_socket_dir = {socket}\nauth_type = any\npool_mode = {mode}\n\
             default_pool_size = {SESSIONS}\nmax_client_conn = 1000\n"
        );
        fs::write(&config, text).unwrap();
        let mut command = unprivileged("sh");
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap());
        command.env("PATH", path).args(["-c", SCRIPT, "pgbouncer"]).arg(&config);
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).current_dir("/");
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take();
        let pgbouncer = Self { port, child, input, _folder: folder };
        let socket = Path::new(socket).join(format!(".s.PGSQL.{port}"));
        let begun = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "PgBouncer does not start; is it installed?");
            std::thread::yield_now();
        }
        pgbouncer
    }

    /// Returns the URL of a database of the server, through this pooler.
    pub(crate) fn before(&self, url: &str) -> String {
        format!("{url}&port={}", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}
