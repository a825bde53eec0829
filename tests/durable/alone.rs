//! Tests that run in their own process, because they change it: its directory, its limits, its libraries.

use std::env;
use std::process::{Child, Command, Stdio};

/// The environment variable that names the test of a process.
const ALONE: &str = "ASYNC_MAP_TASK_ALONE";

/// Runs this test again in its own process, and returns `true` there. The test is identified by its path in this
/// binary.
pub(crate) fn is_alone(test: &str, prepare: impl FnOnce(&mut Command)) -> bool {
    if is_here(test) {
        return true;
    }
    let mut command = command(test);
    prepare(&mut command);
    let output = command.output().unwrap();
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{}: {text}", output.status);
    false
}

/// Returns `true` if this process is the one of this test.
pub(crate) fn is_here(test: &str) -> bool {
    env::var(ALONE).is_ok_and(|alone| alone == test)
}

/// Starts a process for this test.
pub(crate) fn start(test: &str, prepare: impl FnOnce(&mut Command)) -> Child {
    let mut command = command(test);
    prepare(&mut command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn command(test: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(ALONE, test);
    command
}
