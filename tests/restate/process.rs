//! Processes that a test starts and kills: this program itself, with a job.

mod job;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs};

use tokio::net::TcpStream;
use tokio::time::sleep;

use self::job::Job;
pub(crate) use self::job::{CONCURRENCY, Map, Report};
use crate::guarded::Guarded;
use crate::ports;
use crate::server::LONGEST;
use crate::work::Log;

/// The environment variable with the job of a process.
const JOB: &str = "ASYNC_MAP_TASK_JOB";

fn start(job: &Job) -> Guarded {
    Guarded::start(&program(job, ":"))
}

/// Returns a command that runs this program with a job, after a shell command.
fn program(job: &Job, before: &str) -> Command {
    let mut program = Command::new("sh");
    // The output of the test harness in the child is not needed.
    program
        .args(["-c", &format!(r#"{before} && exec "$0" "$@" >/dev/null"#)])
        .arg(env::current_exe().unwrap());
    program.args([job::TEST, "--exact", "--nocapture"]).env(JOB, serde_json::to_string(job).unwrap());
    program
}

/// Checks now and then until there is a value. It does not check often, because a long log takes long to read.
pub(crate) async fn wait_for<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < LONGEST, "waited in vain for {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A worker with its own port and log, which it keeps when it is killed and restarted.
pub(crate) struct Worker {
    port: u16,
    folder: PathBuf,
    log: Log,
    process: Option<Guarded>,
}

impl Worker {
    pub(crate) async fn start(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let log = Log::new(&folder.join(job::LOG));
        let mut worker = Self { port: ports::free(), folder, log, process: None };
        worker.revive().await;
        worker
    }

    /// Starts it on its port, and waits until it listens.
    pub(crate) async fn revive(&mut self) {
        self.process = Some(start(&Job::Work { port: self.port, folder: self.folder.clone() }));
        let listens = async || TcpStream::connect(("127.0.0.1", self.port)).await.ok();
        wait_for("the worker", listens).await;
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("it lives").kill();
    }

    /// Lets the held items end.
    pub(crate) fn open_gate(&self) {
        File::create(self.folder.join(job::GATE)).unwrap();
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }
}

/// A process that executes a run.
pub(crate) struct Coordinator {
    report: PathBuf,
    process: Guarded,
}

impl Coordinator {
    pub(crate) fn start(map: &Map, folder: &Path) -> Self {
        Self::start_with(map, folder, ":", &[])
    }

    /// Starts it after a shell command, and with these variables in its environment.
    pub(crate) fn start_with(map: &Map, folder: &Path, before: &str, variables: &[(&str, &Path)]) -> Self {
        let report = folder.join("report.json");
        let _ = fs::remove_file(&report);
        let job = Job::Map { map: map.clone(), report: report.clone() };
        let mut program = program(&job, before);
        program.envs(variables.iter().copied());
        Self { process: Guarded::start(&program), report }
    }

    /// Kills it with SIGKILL, before its run has ended.
    pub(crate) fn kill(self) {
        self.process.kill();
        assert!(!self.report.exists(), "the run had ended before the kill");
    }

    /// Waits for the end of its run, and returns the report and the warnings.
    pub(crate) async fn report_and_warnings(self) -> (Report, String) {
        let log = self.report.with_extension("log");
        (self.report().await, fs::read_to_string(log).unwrap())
    }

    /// Waits for the end of its run.
    pub(crate) async fn report(self) -> Report {
        let report = wait_for("the report", async || fs::read(&self.report).ok()).await;
        let report: Result<Report, String> = serde_json::from_slice(&report).unwrap();
        report.unwrap()
    }
}
