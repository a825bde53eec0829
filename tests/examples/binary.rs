//! The binaries of the examples. They are built as the test itself was: with its profile and its features, in its target
//! folder. `cargo test` without a filter has built them already, and then nothing is compiled.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// The features of this test.
const FEATURES: [(&str, bool); 8] = [
    ("http", cfg!(feature = "http")),
    ("postgres", cfg!(feature = "postgres")),
    ("restate", cfg!(feature = "restate")),
    ("serde", cfg!(feature = "serde")),
    ("signal", cfg!(feature = "signal")),
    ("sqlite", cfg!(feature = "sqlite")),
    ("store", cfg!(feature = "store")),
    ("store-conformance", cfg!(feature = "store-conformance")),
];

/// Builds the targets that these arguments of `cargo build` select, and returns the folder of the binaries. Cargo does not
/// hold its lock while tests run, so this does not wait for the build that runs the test.
pub(crate) fn build(targets: &[&str]) -> PathBuf {
    let features: Vec<_> = FEATURES.iter().filter(|(_, is_on)| *is_on).map(|(name, _)| *name).collect();
    let target_folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Cargo describes the package of a test to it. The build scripts of some crates would take that for a change.
    let describes_package =
        |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(describes_package)) {
        cargo.env_remove(name);
    }
    cargo.args(["build", "--quiet", "--message-format", "json", "--features", &features.join(",")]);
    cargo.args(targets).arg("--target-dir").arg(target_folder);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit()).output().unwrap();
    assert!(built.status.success(), "the examples could not be built");
    let messages = String::from_utf8(built.stdout).unwrap();
    let mut messages = messages.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let binary = messages.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    binary.expect("the build names its binaries").parent().unwrap().to_owned()
}
