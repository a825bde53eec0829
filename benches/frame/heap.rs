//! The same heap for everybody.

use std::env;
use std::process::Command;

/// glibc's own first values, in bytes.
const FIRST_THRESHOLDS: [(&str, &str); 2] =
    [("MALLOC_MMAP_THRESHOLD_", "131072"), ("MALLOC_TRIM_THRESHOLD_", "131072")];

/// This program, with a heap that keeps nothing for later.
///
/// Once a large block was freed, glibc gives less back to the system from then on. After a contender with a million
/// tasks those with a task for each item find their memory there already, at a quarter to a third of their whole price,
/// as in a service whose heap is warm. Here each run pays for what it takes, as the first in a process does.
pub(crate) fn without_memory_of_others() -> Command {
    let mut program = Command::new(env::current_exe().expect("the path of this program"));
    program.envs(FIRST_THRESHOLDS);
    program
}
