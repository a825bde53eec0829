//! Runs shell commands, several at once: one child process per item, as `xargs -P` or GNU parallel do.
//!
//! ```text
//! cargo run --example run_commands -- --jobs 4 --timeout 60 --retries 1 'gzip -k {}' *.log
//! cargo run --example run_commands < commands.txt
//! ```
//!
//! It shows a function that owns something outside of the program. The processes of an item end with it: at its
//! normal end, at its time limit, at the end of its run, and when the run is dropped. They get SIGTERM first and,
//! after a grace, SIGKILL. It also shows `ordered` and `try_for_each`: the output of a command is printed when it and
//! all commands before it have ended. If the output cannot be written any more, the run ends. It requires Unix.

#[cfg(unix)]
mod arguments;
#[cfg(unix)]
mod command;
#[cfg(unix)]
mod jobs;

#[cfg(unix)]
#[tokio::main]
async fn main() -> std::io::Result<()> {
    jobs::run_all().await
}

#[cfg(not(unix))]
fn main() -> Result<(), &'static str> {
    Err("run_commands requires Unix: it ends the processes of a command as a group")
}
