//! The example `proof`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::{Ended, Sandbox};

/// The number of claims, each of which has several rows.
const CLAIMS: usize = 20;

fn prove(sandbox: &Sandbox, resume_batch: &Path) -> Ended {
    sandbox.example("proof").arg("--resume-batch").arg(resume_batch).run()
}

/// Returns the rows below the head of the table, each with its four columns.
fn rows(ended: &Ended) -> Vec<[String; 4]> {
    let text = ended.text().into_owned();
    let rows = text.lines().filter_map(|line| {
        let columns: Vec<_> = line.split(" | ").map(|column| column.trim().to_owned()).collect();
        columns.try_into().ok()
    });
    let rows: Vec<[String; 4]> = rows.collect();
    assert_eq!(rows[0], ["claim", "measured", "wanted", "ok"]);
    rows[2..].to_vec()
}

#[test]
fn proof_proves_every_claim() {
    // The build does not count toward the time limit of the sandbox.
    let resume_batch = crate::binary::path("resume_batch");
    let ended = prove(&Sandbox::new(), &resume_batch);
    let rows = rows(&ended);
    ended.exits(0).check(rows.iter().all(|[.., ok]| ok == "ok"), "every row is ok");
    let claims = rows.iter().filter(|[claim, ..]| !claim.is_empty()).count();
    ended.check(claims == CLAIMS, format_args!("it has {CLAIMS} claims, and not {claims}"));
    ended.out_has(&format!("\n{} facts in ", rows.len())).out_has(" s, 0 failed\n");
    ended.check(ended.err.is_empty(), "it has nothing to report");
}

/// Its program forgets the run before it starts.
#[test]
fn proof_fails_with_a_durable_run_that_is_lost() {
    let real = crate::binary::path("resume_batch");
    let sandbox = Sandbox::new();
    let script = format!("#!/bin/sh\nrm -f \"$3\" \"$3\"-*\nexec '{}' \"$@\"\n", real.display());
    let forgetful = sandbox.file("forgetful", script);
    fs::set_permissions(&forgetful, fs::Permissions::from_mode(0o755)).unwrap();
    let ended = prove(&sandbox, &forgetful);
    ended.exits(1).out_has(", 1 failed\n");
    let rows = rows(&ended);
    let failed: Vec<_> = rows.iter().filter(|[.., ok]| ok != "ok").collect();
    let [[claim, measured, wanted, ok]] = failed.as_slice() else { panic!("{failed:?}") };
    assert_eq!([claim, wanted, ok], ["a kill -9 loses nothing", "a measurement", "FAIL"]);
    assert!(measured.starts_with("line 1: ") && measured.ends_with(": FAILED"), "{measured}");
}
