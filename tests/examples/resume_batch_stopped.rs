//! The example `resume_batch`: it continues after it was stopped or killed.

use std::fs;

use rustix::process::Signal;

use crate::harness::{Ended, Sandbox, hold_fifo};
use crate::resume_batch::{Batch, CONTENT, OTHER_CONTENT, SECTION};

/// Starts a batch in which files 24 and 25 are pipes. Stops it when it has verified the 14 files before them and has read a
/// section of 25. While it is halfway, the test can do something else. Then 24 is a file again, and 25 has this content.
fn stop_halfway(batch: &Batch<'_>, signal: Signal, content: &[u8], meanwhile: impl FnOnce(i32)) -> Ended {
    let names = [24, 25].map(|number| batch.file(number));
    names.iter().for_each(|name| fs::remove_file(name).unwrap());
    batch.sandbox.fifo("batch/24");
    batch.sandbox.fifo("batch/25");
    let new = batch.large_file(content);
    let mut pipe = hold_fifo(&batch.file(25));
    let mut run = batch.run("nightly").args(["--lease", LEASE, "--concurrency", "2"]).start();
    batch.sandbox.feed(&mut pipe, CONTENT, SECTION / CONTENT.len());
    run.until_err_has("14 of 40 files, 0 of them from earlier runs, 64 MiB of large files");
    meanwhile(run.pid().as_raw_nonzero().get());
    run.signal(signal);
    let ended = run.end();
    fs::rename(new, batch.file(25)).unwrap();
    fs::remove_file(batch.file(24)).unwrap();
    batch.write(24, "file 24\n");
    ended
}

/// The seconds for which a killed process keeps its run. The next process must start before that to see it.
const LEASE: &str = "4";

/// After a stop, the batch continues: it reads neither the first 14 files again nor the first section of 25.
fn continues(batch: &Batch<'_>, expected: &[u8], known: &str) {
    (10..24).for_each(|number| batch.write(number, "changed\n"));
    let ended = batch.run("nightly").args(["--lease", LEASE]).run();
    ended.exits(0).out_is(expected).err_has("0 retries, 0 timeouts, 0 panics, 14 recovered");
    ended.err_has(&format!("run nightly: {known}; 14 files verified, 0 failed"));
}

#[test]
fn resume_batch_continues_after_it_was_killed() {
    let sandbox = Sandbox::new();
    let batch = Batch::with_large_file(&sandbox);
    let expected = batch.verified();
    let meanwhile = |pid| {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let ended = batch.run("nightly").args(["--lease", "1"]).run();
        let holder = format!("run `nightly` is held by {}/{pid}/", host.trim());
        ended.exits(1).out_is("").err_has(&format!("the store failed after 0 items: {holder}"));
    };
    stop_halfway(&batch, Signal::KILL, OTHER_CONTENT, meanwhile).is_killed_by(Signal::KILL);
    continues(&batch, &expected, "running, or killed recently");
}

#[test]
fn resume_batch_continues_after_ctrl_c() {
    let sandbox = Sandbox::new();
    let batch = Batch::with_large_file(&sandbox);
    let expected = batch.verified();
    let ended = stop_halfway(&batch, Signal::INT, OTHER_CONTENT, |_| {});
    ended.exits(1).err_has("verify_files: cancelled after 14 of 40 items");
    ended.err_has("to continue, start it again with the same --run");
    continues(&batch, &expected, "stopped: cancelled");
}

#[test]
fn resume_batch_verifies_again_what_has_changed_in_its_list() {
    let sandbox = Sandbox::new();
    let batch = Batch::with_large_file(&sandbox);
    // The checkpoint of 25 belongs to another file than the current one.
    stop_halfway(&batch, Signal::INT, OTHER_CONTENT, |_| {}).exits(1);
    batch.list_sum(25, &batch.sum(25));
    batch.write(10, "file 10 has changed\n");
    batch.list_sum(10, &batch.sum(10));
    let line_of_49 = batch.file(49);
    fs::remove_file(&line_of_49).unwrap();
    let expected = batch.verified();
    let ended = batch.run("nightly").run();
    ended.exits(1).out_is(expected).err_has("13 recovered, 1 changed since an earlier run");
    let missing = "failed after 1 attempt: cannot read it: No such file";
    ended.err_has(&format!("{}: {missing}", line_of_49.display()));

    batch.write(48, "file 48 has changed\n");
    batch.list_sum(48, &batch.sum(25));
    let ended = batch.run("nightly").run();
    let differs =
        format!("failed after 2 attempts: its SHA-256 must be {}, got {}", batch.sum(25), batch.sum(48));
    ended.exits(1).err_has(&format!("{}: {differs}", batch.file(48).display()));
    ended.err_has("  line 40: failed after 1 attempt: cannot read it");

    batch.list_sum(48, &batch.sum(48));
    batch.write(49, "file 49\n");
    batch.run("nightly").run().exits(0).err_has(" 38 recovered");
}
