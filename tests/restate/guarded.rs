//! Programs that a test starts, and that do not outlive it, no matter how it ends.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::process::{Pid, test_kill_process};

/// Starts the program that its arguments name, prints its process id, and kills it when its own input ends. This happens
/// when the other end of that pipe is closed, or when the process that had it is gone.
const GUARD: &str = r#"
"$@" </dev/null >&2 &
pid=$!
trap 'kill -KILL $pid 2>/dev/null' EXIT
echo $pid
read -r _
kill -KILL $pid 2>/dev/null
wait $pid 2>/dev/null
trap - EXIT
"#;

/// A running program. It is killed if a test drops it, or dies.
#[derive(Debug)]
pub(crate) struct Guarded {
    guard: Child,
    input: Option<ChildStdin>,
    pub(crate) pid: Pid,
}

impl Guarded {
    /// Starts a program with its arguments and its environment.
    pub(crate) fn start(program: &Command) -> Self {
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, "guard"]).arg(program.get_program()).args(program.get_args());
        guard.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        // In its own process group, so that an interrupt from the keyboard leaves the guard time to kill.
        guard.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut guard = guard.spawn().unwrap();
        let mut pid = String::new();
        BufReader::new(guard.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        Self { input: guard.stdin.take(), guard, pid }
    }

    /// Kills it with SIGKILL, and waits until it is gone.
    pub(crate) fn kill(self) {
        let pid = self.pid;
        drop(self);
        assert!(test_kill_process(pid).is_err(), "it lives on");
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.guard.wait();
    }
}
