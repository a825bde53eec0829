//! The examples `restate_map` and `restate_worker`: a run that was stopped or killed continues.

use rustix::process::Signal;

use crate::checksums::{Checksums, FILES, interrupt};
use crate::harness::{Sandbox, lines};
use crate::scene::until;

#[tokio::test]
async fn restate_map_continues_after_ctrl_c() {
    let sandbox = Sandbox::new();
    let (checksums, worker) = Checksums::start(&sandbox).await;
    let (run, endless) = checksums.start_endless("interrupted").await;
    let worker = worker.process.pid();
    until("the worker reads", async || endless.is_read_by(worker)).await;
    let ended = interrupt(run);
    ended.exits(1).err_has("to continue, start it again with the same --run-id");
    ended.check(lines(&ended.out) == FILES, "it prints what was finished");
    checksums.nothing_is_left_of("interrupted").await;
    until("the worker reads no further", async || !endless.is_read_by(worker)).await;
    endless.has_an_end();
    checksums.map("interrupted").run().exits(0).out_is(endless.expected);
}

#[tokio::test]
async fn restate_map_continues_after_it_and_its_worker_were_killed() {
    let sandbox = Sandbox::new();
    let (checksums, worker) = Checksums::start(&sandbox).await;
    let (run, endless) = checksums.start_endless("killed").await;
    let pid = worker.process.pid();
    until("the worker reads", async || endless.is_read_by(pid)).await;
    run.signal(Signal::KILL);
    run.end().is_killed_by(Signal::KILL);
    assert_eq!(checksums.count("killed", "status = 'running'").await, 1, "the engine continues");
    let port = worker.port;
    drop(worker);
    endless.has_an_end();
    let _worker = checksums.worker(port);
    checksums.map("killed").run().exits(0).out_is(endless.expected);
}
