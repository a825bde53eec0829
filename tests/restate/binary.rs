//! The binaries of the examples.

use std::path::PathBuf;

pub(crate) fn path(name: &str) -> PathBuf {
    match name {
        "restate_map" => env!("CARGO_BIN_EXE_restate_map").into(),
        "restate_worker" => env!("CARGO_BIN_EXE_restate_worker").into(),
        _ => panic!("no example {name}"),
    }
}
