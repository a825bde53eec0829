//! The binaries of the examples. They are built as the test itself was: with its profile, in its target folder.
//! `cargo test --workspace --all-features` has built them already, and then nothing is compiled.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use serde_json::Value;

/// The binaries by the names of the examples. All of them are built once.
static BINARIES: LazyLock<HashMap<String, PathBuf>> = LazyLock::new(build);

/// The binary of an example.
pub(crate) fn path(name: &str) -> PathBuf {
    BINARIES.get(name).unwrap_or_else(|| panic!("no example {name}")).clone()
}

/// Builds the examples of all packages, and returns their binaries. Cargo does not hold its lock while tests run, so this
/// does not wait for the build that runs the test.
fn build() -> HashMap<String, PathBuf> {
    let target_folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Cargo describes the package of a test to it. The build scripts of some crates would take that for a change.
    let describes_package =
        |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(describes_package)) {
        cargo.env_remove(name);
    }
    cargo.args(["build", "--quiet", "--message-format", "json"]);
    cargo.args(["--workspace", "--all-features", "--bins", "--examples"]);
    cargo.arg("--target-dir").arg(target_folder);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit()).output().unwrap();
    assert!(built.status.success(), "the examples could not be built");
    let messages = String::from_utf8(built.stdout).unwrap();
    let binary = |line| {
        let message: Value = serde_json::from_str(line).unwrap();
        Some((message["target"]["name"].as_str()?.to_owned(), message["executable"].as_str()?.into()))
    };
    messages.lines().filter_map(binary).collect()
}
