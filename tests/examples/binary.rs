//! The binaries of the examples. They are built as the test itself was: with its profile, in its target folder.
//! `cargo test --workspace --all-features` has built them already, and then nothing is compiled.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::LazyLock;

use serde_json::Value;

use crate::cargo::cargo;

/// The binaries by the names of the examples. All of them are built once.
static BINARIES: LazyLock<HashMap<String, PathBuf>> = LazyLock::new(build);

/// The binary of an example.
pub(crate) fn path(name: &str) -> PathBuf {
    BINARIES.get(name).unwrap_or_else(|| panic!("no example {name}")).clone()
}

/// Builds the examples of all packages, and returns their binaries.
fn build() -> HashMap<String, PathBuf> {
    let target_folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut cargo = cargo();
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
