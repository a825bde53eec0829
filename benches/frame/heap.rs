//! The same heap for all contenders.

use std::env;
use std::process::Command;

/// The default values of glibc, in bytes.
const FIRST_THRESHOLDS: [(&str, &str); 2] =
    [("MALLOC_MMAP_THRESHOLD_", "131072"), ("MALLOC_TRIM_THRESHOLD_", "131072")];

/// Returns a command for this program, with a heap that keeps nothing for later.
///
/// After a large block was freed, glibc returns less memory to the system. After a contender with a million tasks, the
/// contenders with a task for each item would find their memory ready, which saves a quarter to a third of their cost, as
/// in a service with a warm heap. Here, each run pays for its own memory, like the first run in a process.
pub(crate) fn without_memory_of_others() -> Command {
    let mut program = Command::new(env::current_exe().expect("the path of this program"));
    program.envs(FIRST_THRESHOLDS);
    program
}
