//! The example `load_shards`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::Sandbox;

/// The shards that come with the examples.
const SHARDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/shards");

/// The values of all shards.
pub(crate) fn values() -> Vec<u64> {
    let names = fs::read_dir(SHARDS).unwrap().map(|entry| entry.unwrap().path());
    let shards = names.filter(|path| path.extension().is_some_and(|extension| extension == "csv"));
    let texts: Vec<_> = shards.map(|path| fs::read_to_string(path).unwrap()).collect();
    let value = |line: &str| line.split_once(',').unwrap().1.parse().unwrap();
    texts.iter().flat_map(|text| text.lines().skip(1).map(value)).collect()
}

fn copy_of_shards(sandbox: &Sandbox) -> PathBuf {
    let copy = sandbox.folder("shards");
    for entry in fs::read_dir(Path::new(SHARDS)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    copy
}

#[test]
fn load_shards_reads_every_value() {
    let values = values();
    let sum: u64 = values.iter().sum();
    let ended = Sandbox::new().example("load_shards").run();
    ended.exits(0).out_has(&format!("{} values in 6 shards, their sum is {sum}\n", values.len()));
}

#[test]
fn load_shards_names_a_shard_that_was_changed() {
    let sandbox = Sandbox::new();
    let shards = copy_of_shards(&sandbox);
    let changed = fs::read_to_string(shards.join("readings-4.csv")).unwrap() + "s1,1\n";
    sandbox.file("shards/readings-4.csv", changed);
    let ended = sandbox.example("load_shards").arg(shards).run();
    ended.exits(1).err_has("the SHA-256 of readings-4.csv must be");
}

#[test]
fn load_shards_refuses_lists_of_different_lengths() {
    let sandbox = Sandbox::new();
    let shards = copy_of_shards(&sandbox);
    fs::remove_file(shards.join("readings-4.csv")).unwrap();
    let ended = sandbox.example("load_shards").arg(shards).run();
    ended.exits(1).err_has("list 2 has 6 items and list 1 has 5");
}
