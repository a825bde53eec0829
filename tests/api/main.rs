//! The public API of the crate with all features, compared with the list in `public_api.txt`. A change of the API then is a
//! change of that file, which a review sees.
//!
//! ```text
//! cargo test -p test-api                     compares
//! UPDATE_API=1 cargo test -p test-api        writes the list
//! ```

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may")]

#[path = "../examples/cargo.rs"]
mod cargo;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use self::cargo::cargo;

const LIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/public_api.txt");

/// Traits of the compiler that code cannot name, and modules that exist only in the documentation.
const UNUSABLE: [&str; 3] = ["core::marker::Freeze", "core::marker::UnsafeUnpin", "async_map_task::guide"];

/// Has rustdoc describe the crate as JSON, and returns the file. This output is not stable, and the compiler provides it only if it is
/// asked to as one of its own tools, which `rustdoc.sh` does.
fn describe() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let described = cargo()
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .args(["rustdoc", "--quiet", "-p", "async-map-task", "--lib", "--all-features", "--target-dir"])
        .arg(target)
        .args(["--", "-Z", "unstable-options", "--output-format", "json"])
        .env("RUSTDOC", concat!(env!("CARGO_MANIFEST_DIR"), "/rustdoc.sh"))
        .status()
        .unwrap();
    assert!(described.success(), "rustdoc has failed");
    target.join("doc/async_map_task.json")
}

#[test]
fn the_public_api_is_the_one_that_is_listed() {
    let api = public_api::Builder::from_rustdoc_json(describe())
        .omit_blanket_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .unwrap();
    let items =
        api.items().map(ToString::to_string).filter(|item| !UNUSABLE.iter().any(|part| item.contains(part)));
    let items: Vec<String> = items.collect();
    assert!(items.len() > 500, "{} items", items.len());
    if env::var_os("UPDATE_API").is_some() {
        fs::write(LIST, items.join("\n") + "\n").unwrap();
        return;
    }
    let listed = fs::read_to_string(LIST).unwrap();
    let listed: BTreeSet<&str> = listed.lines().collect();
    let found: BTreeSet<&str> = items.iter().map(String::as_str).collect();
    let removed: String = listed.difference(&found).map(|item| format!("- {item}\n")).collect();
    let added: String = found.difference(&listed).map(|item| format!("+ {item}\n")).collect();
    let change = removed + &added;
    assert!(change.is_empty(), "the public API has changed. UPDATE_API=1 writes the new list.\n{change}");
}
