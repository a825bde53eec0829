//! The examples `restate_worker` and `restate_map`, with their own server and a tree of files.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::harness::{Ended, Program, Running, Sandbox};
use crate::scene::until;
use crate::server::Server;

/// The number of files in the tree at the start.
pub(crate) const FILES: usize = 46;

/// A server, and the tree that its workers read.
pub(crate) struct Checksums<'s> {
    pub(crate) sandbox: &'s Sandbox,
    pub(crate) server: Server,
    pub(crate) files: PathBuf,
    pub(crate) ways: Ways,
}

/// The ways in which the coordinator reaches the server.
#[derive(Debug, Clone)]
pub(crate) struct Ways {
    pub(crate) ingress: String,
    pub(crate) admin: String,
    /// Further variables of its environment.
    pub(crate) variables: Vec<(&'static str, String)>,
}

/// A running worker.
pub(crate) struct Worker<'s> {
    pub(crate) process: Running<'s>,
    pub(crate) port: u16,
}

impl<'s> Checksums<'s> {
    /// Starts the server and one worker, which is registered.
    pub(crate) async fn start(sandbox: &'s Sandbox) -> (Self, Worker<'s>) {
        let server = Server::start().await;
        let ways = Ways { ingress: server.ingress(), admin: server.admin(), variables: Vec::new() };
        let checksums = Self { sandbox, server, files: sandbox.folder("files"), ways };
        checksums.make_files();
        let worker = checksums.worker(0);
        checksums.server.register(worker.port).await;
        (checksums, worker)
    }

    fn make_files(&self) {
        for folder in ["a dir", "a-dir"] {
            fs::create_dir(self.files.join(folder)).unwrap();
        }
        self.write_numbered("file");
        for name in ["a dir/ two  spaces ", "a-dir/file", "new\nline", "back\\slash", "empty"] {
            self.write(name, if name == "empty" { "" } else { name });
        }
        fs::write(self.files.join("larger than a buffer"), vec![0; 3_000_000]).unwrap();
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.files.join(name), text).unwrap();
    }

    /// Writes the files 10 to 49, which are most of the tree.
    pub(crate) fn write_numbered(&self, text: &str) {
        (10..50).for_each(|number| self.write(&number.to_string(), &format!("{text} {number}\n")));
    }

    /// Returns the expected output of `restate_map`: the checksums of all files, sorted by path.
    pub(crate) fn sums(&self) -> Vec<u8> {
        let mut names = Vec::new();
        for entry in walkdir::WalkDir::new(&self.files).sort_by_file_name() {
            let entry = entry.unwrap();
            if entry.file_type().is_file() {
                names.push(entry.path().strip_prefix(&self.files).unwrap().to_owned());
            }
        }
        self.sandbox.sha256sum(&self.files, names)
    }

    /// Starts a worker on this port, or on any, and waits until it listens.
    pub(crate) fn worker(&self, port: u16) -> Worker<'s> {
        let run = self.sandbox.example("restate_worker").arg(&self.files);
        let mut process = run.args(["--listen", &format!("127.0.0.1:{port}")]).start();
        process.until_err_has("hashing files of ");
        process.until("a whole line", |process| process.err().ends_with('\n'));
        let port = process.err().trim_end().rsplit(':').next().unwrap().parse().unwrap();
        Worker { process, port }
    }

    /// The coordinator of a run over the tree.
    pub(crate) fn map(&self, run_id: &str) -> Program<'s> {
        self.map_over(&self.files).args(["--run-id", run_id])
    }

    pub(crate) fn map_over(&self, tree: &Path) -> Program<'s> {
        let map = self.sandbox.example("restate_map").arg(tree);
        let map = map.args(["--ingress", &self.ways.ingress, "--admin", &self.ways.admin]);
        self.ways.variables.iter().fold(map, |map, (name, value)| map.env(name, value))
    }

    /// Returns the number of invocations of a run that meet the condition.
    pub(crate) async fn count(&self, run_id: &str, condition: &str) -> usize {
        let sql = format!(
            "SELECT count(*) AS n FROM sys_invocation WHERE idempotency_key LIKE '{run_id}.%' AND {condition}"
        );
        let rows = self.server.query(&sql).await;
        rows[0].get("n").and_then(Value::as_u64).unwrap() as usize
    }

    /// Checks that the engine has no invocation of a run that has not ended.
    pub(crate) async fn nothing_is_left_of(&self, run_id: &str) {
        assert_eq!(self.count(run_id, "status <> 'completed'").await, 0, "{run_id}");
    }

    /// Starts a run that ends, except for one file that never ends. Then changes all other files.
    pub(crate) async fn start_endless(&self, run_id: &str) -> (Running<'s>, Endless) {
        let path = self.files.join("endless");
        let file = File::create(&path).unwrap();
        self.write_numbered(run_id);
        let expected = self.sums();
        // As large as the file system allows.
        file.set_len(100 << 40).or_else(|_| file.set_len(10 << 40)).unwrap();
        let run = self.map(run_id).start();
        let all_others = async || self.count(run_id, "status = 'completed'").await == FILES;
        until("all files but one are hashed", all_others).await;
        self.write_numbered("changed");
        (run, Endless { path, expected })
    }
}

/// A file that is never read to its end, in a run that has hashed all others.
pub(crate) struct Endless {
    path: PathBuf,
    /// The output of the run, once the file has an end.
    pub(crate) expected: Vec<u8>,
}

impl Endless {
    /// Returns `true` if a process has it open.
    pub(crate) fn is_read_by(&self, pid: Pid) -> bool {
        // Meanwhile, the process may close files, or end.
        let Ok(files) = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())) else { return false };
        files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|path| path == self.path))
    }

    /// Empties the file, so that it has an end.
    pub(crate) fn has_an_end(&self) {
        File::create(&self.path).unwrap();
    }
}

/// Interrupts a run as Ctrl-C does.
pub(crate) fn interrupt(run: Running<'_>) -> Ended {
    run.signal(Signal::INT);
    run.end()
}
