//! The example `validate_records`.

use crate::harness::Sandbox;

const RECORDS: &str = include_str!("../../examples/data/records.jsonl");

#[test]
fn validate_records_stops_at_the_first_wrong_record() {
    let ended = Sandbox::new().example("validate_records").run();
    ended.exits(1).out_has("line 6: failed after 1 attempt: the record has no id");
    ended.out_has("5 of 12 records were valid").out_has("6 were not started");
}

#[test]
fn validate_records_accepts_valid_records() {
    let sandbox = Sandbox::new();
    let valid: String = RECORDS.split_inclusive('\n').filter(|line| line.contains("\"id\"")).collect();
    let ended = sandbox.example("validate_records").arg(sandbox.file("valid.jsonl", valid)).run();
    ended.exits(0).out_is("all 11 records are valid, and their ids add up to 72\n");
}

#[test]
fn validate_records_refuses_a_line_that_is_not_json() {
    let sandbox = Sandbox::new();
    let ended = sandbox.example("validate_records").arg(sandbox.file("torn.jsonl", "{\"id\": \n")).run();
    ended.exits(1).out_has("line 1: failed after 1 attempt: not JSON");
}
