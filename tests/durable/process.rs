//! Processes that a test starts, stops and kills: this program itself, with a job.

mod child;
mod job;
mod log;
mod rows;

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

pub(crate) use self::job::{IfHeld, Job, Keeping, Output, Place, STEPS, output};
pub(crate) use self::log::{Event, Line, Log};
pub(crate) use self::rows::{Row, Rows};

/// The environment variable with the job of a process.
const JOB: &str = "ASYNC_MAP_TASK_JOB";

/// The most time that a process or a wait for one may take.
const LONGEST: Duration = Duration::from_secs(60);

/// A running process. It is killed if a test ends before it does.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(job: &Job) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args([child::TEST, "--exact", "--nocapture"]).env(JOB, serde_json::to_string(job).unwrap());
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn is_over(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// Kills it. Returns `true` if it was still running; otherwise it has done its job.
    pub(crate) fn kill(mut self) -> bool {
        self.0.kill().unwrap();
        let status = self.0.wait().unwrap();
        let was_killed = status.signal() == Some(Signal::KILL.as_raw());
        assert!(was_killed || status.success(), "the process failed: {status}");
        was_killed
    }

    /// Waits for it to do its job.
    pub(crate) fn wait(mut self) {
        let status = self.0.wait().unwrap();
        assert!(status.success(), "the process failed: {status}");
    }

    /// Suspends it, and waits until it is.
    pub(crate) fn suspend(&self) {
        self.signal(Signal::STOP);
        let (_, status) = waitpid(Some(self.pid()), WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(status.stopped(), "the process ended: {status:?}");
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
