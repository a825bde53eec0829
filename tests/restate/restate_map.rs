//! The examples `restate_map` and `restate_worker`: their output, and the input that they refuse.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::Value;

use crate::checksums::{Checksums, FILES};
use crate::harness::{Sandbox, lines};
use crate::page;

#[tokio::test]
async fn restate_map_prints_what_sha256sum_prints_and_repeats_a_run_by_its_id() {
    let sandbox = Sandbox::new();
    let (checksums, _worker) = Checksums::start(&sandbox).await;
    let expected = checksums.sums();
    checksums.map("first").run().exits(0).out_is(&expected).err_has("46 items in ");
    checksums.write_numbered("changed");
    checksums.map("first").run().exits(0).out_is(&expected);
    assert_eq!(checksums.count("first", "true").await, FILES, "nothing is called again");
    checksums.map_over(&checksums.files).run().out_is(checksums.sums());
}

/// Returns the code of the error that a worker returns for a path.
async fn refusal(checksums: &Checksums<'_>, path: &str) -> Option<u64> {
    let url = checksums.server.ingress() + "/restate/call/Checksums/sha256";
    let reply = reqwest::Client::new().post(url).json(path).send().await.unwrap();
    reply.json::<Value>().await.unwrap()["code"].as_u64()
}

#[tokio::test]
async fn restate_worker_reads_nothing_but_files_of_its_folder() {
    let sandbox = Sandbox::new();
    let (checksums, worker) = Checksums::start(&sandbox).await;
    symlink("/etc/passwd", checksums.files.join("link out")).unwrap();
    sandbox.fifo("files/pipe");
    let outside = "../files/../../../../../../etc/passwd";
    for path in ["/etc/passwd", outside, "link out", "pipe", "a dir"] {
        assert_eq!(refusal(&checksums, path).await, Some(400), "{path}");
    }
    assert_eq!(refusal(&checksums, "not there").await, Some(404));
    let log = worker.process.err();
    assert_eq!(lines(&log), 1 + 6, "one line for each failure: {log}");

    let missing = sandbox.path("not there");
    let ended = sandbox.example("restate_worker").arg(&missing).run();
    ended.exits(1).err_has(&format!("cannot find {}: No such file", missing.display()));
}

#[tokio::test]
async fn restate_map_keeps_a_failure_until_it_is_purged() {
    let sandbox = Sandbox::new();
    let (checksums, _worker) = Checksums::start(&sandbox).await;
    let expected = checksums.sums();
    // The coordinator sees files that the worker does not see.
    let tree = sandbox.folder("tree");
    let copied = sandbox.program("cp").arg("-r").arg(checksums.files.join(".")).arg(&tree).run();
    copied.exits(0);
    sandbox.file("tree/only here", "only here\n");
    let failing = || checksums.map_over(&tree).args(["--run-id", "failing"]);
    let ended = failing().run();
    let failure = "only here: failed after 1 attempt: the handler failed with code 404: No such file";
    ended.exits(1).err_has(failure);
    ended.err_has("restate_map: 1 of 47 items failed, 0 allowed; item 46 failed first");
    failing().args(["--max-failures", "1"]).run().exits(0).out_is(expected);
    checksums.write("only here", "only here\n");
    failing().run().err_has("only here: failed after 1 attempt");
    page::purge(&sandbox, &checksums.server, "failing");
    let expected = checksums.sums();
    failing().run().exits(0).out_is(&expected);

    sandbox.file("tree/0", "first\n");
    let changed =
        "at this index, because the tree has changed since the run started; choose another --run-id";
    failing().run().exits(1).err_has(changed);
    fs::remove_file(tree.join("0")).unwrap();
    fs::write(tree.join(Path::new(OsStr::from_bytes(b"caf\xe9"))), "").unwrap();
    let ended = checksums.map_over(&tree).args(["--run-id", "not-utf-8", "--max-failures", "1"]).run();
    ended.err_has("failed after 1 attempt: the item cannot be serialized as JSON: ").out_is(&expected);

    checksums
        .map_over(&tree)
        .args(["--concurrency", "0"])
        .run()
        .is_refused("concurrency must be at least 1 (unbounded_concurrency() removes the limit), got 0");
    checksums
        .map("a b")
        .run()
        .exits(1)
        .err_has("run_id must be one or more visible ASCII characters, got `a b`");
    checksums.map_over(&sandbox.path("not there")).run().err_has("cannot list the files: ");
}
