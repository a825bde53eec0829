//! The example `run_commands`: it leaves no process behind, regardless of how its commands end.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Running, Sandbox, without_reader};

/// A time that no other process sleeps for, so that the remaining processes of a test's commands can be found.
struct SleepTime(String);

impl SleepTime {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self(format!("300.{}{:03}", std::process::id(), NEXT.fetch_add(1, Relaxed)))
    }

    fn sleepers(&self) -> Vec<Pid> {
        let command_line = format!("sleep\0{}\0", self.0);
        let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let entry = entry.unwrap();
            // It may end while this reads.
            let found = fs::read(entry.path().join("cmdline")).ok()?;
            let pid = entry.file_name().to_str()?.parse().ok()?;
            (found == command_line.as_bytes()).then(|| Pid::from_raw(pid).unwrap())
        });
        processes.collect()
    }

    #[track_caller]
    fn none_left(&self, sandbox: &Sandbox) {
        sandbox.until("no process is left", || self.sleepers().is_empty());
    }
}

/// Processes that the test has left behind must not outlive it.
impl Drop for SleepTime {
    fn drop(&mut self) {
        for pid in self.sleepers() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// A child that ignores SIGTERM and writes elsewhere, and a child of a child. Then the command appends a line to a file.
fn stubborn(time: &SleepTime) -> String {
    let time = &time.0;
    format!(
        "(trap '' TERM; exec sleep {time} >/dev/null 2>&1) & sh -c 'sleep {time} & wait' & echo started >>"
    )
}

#[test]
fn run_commands_kills_what_a_command_has_started_at_the_time_limit() {
    let (sandbox, time) = (Sandbox::new(), SleepTime::new());
    let started = sandbox.path("started");
    let template = format!("{} {{}}; sleep {}", stubborn(&time), time.0);
    let run = sandbox.example("run_commands").args(["--timeout", "2", "--grace", "1", &template]);
    let ended = run.arg(&started).run();
    ended.exits(1).err_has("failed after 1 attempt: timed out at the timeout_per_attempt of 2s");
    ended.check(started.exists(), "the command had started others");
    time.none_left(&sandbox);
}

#[test]
fn run_commands_kills_what_a_shell_has_left_behind_at_the_time_limit() {
    let (sandbox, time) = (Sandbox::new(), SleepTime::new());
    let run = sandbox.example("run_commands").args(["--timeout", "1s", "--grace", "0", "--retries", "1"]);
    let ended = run.arg(stubborn(&time)).arg(sandbox.path("started")).run();
    time.none_left(&sandbox);
    ended.err_has("1 retry, 2 timeouts");
}

#[test]
fn run_commands_lets_a_command_end_in_order_at_the_time_limit() {
    let (sandbox, time) = (Sandbox::new(), SleepTime::new());
    let template = format!("trap 'echo {{}} tidied up; exit 0' TERM; sleep {} & wait", time.0);
    let ended = sandbox.example("run_commands").args(["--timeout", "2", &template, "it"]).run();
    ended.exits(0).out_is("it tidied up\n");
    time.none_left(&sandbox);
}

#[test]
fn run_commands_leaves_a_process_in_the_background_alone() {
    let (sandbox, time) = (Sandbox::new(), SleepTime::new());
    let template = format!("sleep {} >/dev/null 2>&1 & : {{}}", time.0);
    let ended = sandbox.example("run_commands").args([&template, "x"]).run();
    let is_left = || time.sleepers().len() == 1;
    // The shell ends before its child has become `sleep`.
    sandbox.until("one process is left", is_left);
    ended.exits(0).check(is_left(), "a command may leave a process in the background");
}

#[test]
fn run_commands_ends_the_other_commands_at_the_first_failure() {
    let (sandbox, time) = (Sandbox::new(), SleepTime::new());
    let template = format!(
        "case {{}} in
        slow) echo go >{running}; sleep {time} & sleep {time} ;;
        wrong) read -r word <{running}; exit 1 ;;
        esac",
        running = sandbox.fifo("running").display(),
        time = time.0
    );
    let options = ["--fail-fast", "--jobs", "2", &template, "slow", "wrong"];
    sandbox.example("run_commands").args(options).run().exits(1);
    time.none_left(&sandbox);
}

#[test]
fn run_commands_ends_the_commands_if_nobody_reads_their_output() {
    let (sandbox, time) = (Sandbox::new(), SleepTime::new());
    let run = sandbox.example("run_commands").args(["--jobs", "2", "seq 100000; sleep {}", "0", &time.0]);
    run.stdout(without_reader()).run().exits(1);
    time.none_left(&sandbox);
}

/// Starts a run of four commands, and waits until one has ended and two are running, with three processes each. The shell of
/// a command runs the three parts: before it starts them, after that, and to wait for them.
fn start_four<'s>(
    sandbox: &'s Sandbox,
    time: &SleepTime,
    grace: &str,
    [before, after, wait]: [&str; 3],
) -> Running<'s> {
    let sleep = format!("sleep {}", time.0);
    let template = format!(
        "case {{}} in quick) echo done; exit ;; esac
        {before}
        (exec {sleep} >/dev/null 2>&1) & sh -c '{sleep} & wait' & {sleep} &
        {after}
        echo {{}} >>ready
        {wait}"
    );
    let options = ["--jobs", "2", "--grace", grace, &template, "quick", "a", "b", "c"];
    let ready = sandbox.path("ready");
    let mut run = sandbox.example("run_commands").folder(&sandbox.path(".")).args(options).start();
    run.until("six processes, two shells that wait, and the output of a command", |run| {
        let shells_wait = fs::read(&ready).is_ok_and(|ready| ready.len() == 4);
        shells_wait && time.sleepers().len() == 6 && run.out() == b"done\n"
    });
    run
}

/// Commands that end at SIGTERM.
const OBEDIENT: [&str; 3] = ["", "", "wait"];

/// Commands with processes that ignore SIGTERM. Their shell notes it in a file, and continues to wait.
const STUBBORN: [&str; 3] = ["trap '' TERM", "trap 'echo {} >>told' TERM", "while :; do wait; done"];

#[test]
fn run_commands_ends_its_commands_at_a_signal() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let (sandbox, time) = (Sandbox::new(), SleepTime::new());
        let run = start_four(&sandbox, &time, "30", OBEDIENT);
        run.signal(signal);
        let ended = run.end();
        time.none_left(&sandbox);
        ended.exits(1).out_is("done\n").err_has("run_commands: cancelled after 3 of 4 items");
    }
}

#[test]
fn run_commands_kills_commands_that_ignore_sigterm_after_the_grace() {
    let (sandbox, time) = (Sandbox::new(), SleepTime::new());
    let run = start_four(&sandbox, &time, "1", STUBBORN);
    run.signal(Signal::INT);
    let ended = run.end();
    time.none_left(&sandbox);
    ended.err_has("1 succeeded, 0 failed, 2 cancelled, 1 not started");
}

#[test]
fn run_commands_kills_everything_at_a_second_signal() {
    let (sandbox, time) = (Sandbox::new(), SleepTime::new());
    let mut run = start_four(&sandbox, &time, "300", STUBBORN);
    run.signal(Signal::INT);
    let told = sandbox.path("told");
    run.until("both commands get SIGTERM", |_| fs::read(&told).is_ok_and(|told| told.len() == 4));
    assert_eq!(time.sleepers().len(), 6, "commands that ignore SIGTERM have a grace");
    run.signal(Signal::INT);
    let ended = run.end();
    time.none_left(&sandbox);
    ended.exits(130);
}
