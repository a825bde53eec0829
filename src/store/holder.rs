//! The names of the holders of runs and claims.

use std::process;

use crate::random::random;

/// Returns a new name, which no other holder has: `host/pid/16 hexadecimal digits`.
///
/// A person can find the process by this name. The digits are random: a process in a container often has the number 1, and
/// several hosts may have the same name.
pub(crate) fn holder() -> String {
    format!("{}{:016x}", process_prefix(), random())
}

/// Returns `true` if the holder belongs to this process, or to a process with the same number on a host of the same name.
pub(crate) fn is_of_this_process(holder: &str) -> bool {
    holder.starts_with(&process_prefix())
}

fn process_prefix() -> String {
    format!("{}/{}/", gethostname::gethostname().to_string_lossy(), process::id())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_holders_have_one_name() {
        let names: HashSet<String> = (0..1000).map(|_| holder()).collect();
        assert_eq!(names.len(), 1000);
        for name in &names {
            let parts: Vec<&str> = name.rsplitn(3, '/').collect();
            assert_eq!(parts.len(), 3, "{name}");
            assert_eq!(parts[0].len(), 16, "{name}");
            assert_eq!(parts[1], process::id().to_string());
            assert!(!parts[2].is_empty(), "{name}");
        }
    }
}
