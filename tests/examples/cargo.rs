//! Cargo, started by a test. It does not hold its lock while tests run, so this does not wait for the build that runs the test.

use std::process::Command;

/// Returns the Cargo that runs this test, without what it has described to the test: the build scripts of some crates would take the
/// package for a change.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let describes_package =
        |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(describes_package)) {
        cargo.env_remove(name);
    }
    cargo
}
