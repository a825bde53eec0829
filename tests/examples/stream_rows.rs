//! The example `stream_rows`.

use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::process::Stdio;
use std::thread;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;

use crate::harness::{Ended, Sandbox, without_reader};

/// The first rows of the table.
fn rows(count: u64) -> String {
    let mut rows = String::new();
    for id in 1..=count {
        let cents = id % 10_000 * 7_919 % 10_000;
        let total = (id % 7 + 1) * cents;
        writeln!(rows, "{id},{},{cents},{}.{:02}", id % 7 + 1, total / 100, total % 100).unwrap();
    }
    rows
}

#[track_caller]
fn check_rows_ahead(ended: &Ended) {
    let most = ended.err.lines().find_map(|line| line.strip_prefix("maximum of rows ahead: "));
    let most: u64 = most.unwrap().strip_suffix(" of at most 32").unwrap().parse().unwrap();
    ended.check((1..=32).contains(&most), "the source waits for the sink");
}

#[test]
fn stream_rows_streams_a_million_rows_in_constant_memory() {
    let ended = Sandbox::new().example("stream_rows").args(["--rows", "1000000"]).run();
    ended.exits(0).check(ended.out == rows(1_000_000).as_bytes(), "it has each row, in order");
    ended.err_has("1000000 items in ");
    check_rows_ahead(&ended);
    let memory = |line: &str| {
        let (_, memory) = line.strip_suffix(" kB resident")?.split_once("00000 rows, ")?;
        memory.parse::<u64>().ok()
    };
    let memory: Vec<_> = ended.err.lines().filter_map(memory).collect();
    ended.check(memory.len() == 10, "it prints the memory ten times");
    // 900,000 rows follow the first line. One byte kept for each would be 879 kB.
    let growth = memory.iter().max().unwrap() - memory[0];
    ended.check(growth < 800, format_args!("the memory is constant, it has grown by {growth} kB"));
}

#[test]
fn stream_rows_runs_without_proc() {
    let sandbox = Sandbox::new();
    // A user namespace may have its own /proc, and this one is empty.
    let unshare = |program: &str| {
        let mount = "mount -t tmpfs none /proc && exec \"$0\" \"$@\"";
        let namespace = ["--user", "--map-root-user", "--mount", "sh", "-c", mount];
        sandbox.program("unshare").args(namespace).arg(program)
    };
    if !unshare("true").run().succeeds() {
        eprintln!("skipped: this system does not allow user namespaces");
        return;
    }
    let example = crate::binary::path("stream_rows");
    let run = unshare(example.to_str().unwrap()).args(["--rows", "1000", "--tell-every", "1000"]).run();
    run.exits(0).err_has("1000 rows, the resident memory is unknown");
}

/// Returns a pipe with a reader that does not read yet.
fn pipe() -> (File, Stdio) {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    (reader.into(), writer.into())
}

#[test]
fn stream_rows_waits_for_its_reader_and_ends_in_order_at_ctrl_c() {
    let sandbox = Sandbox::new();
    let (mut reader, writer) = pipe();
    let mut run = sandbox.example("stream_rows").args(["--tell-every", "1000"]).stdout(writer).start();
    run.until_err_has("2000 rows, ");
    run.until_silent();
    assert!(!run.err().contains("00000 rows"), "it waits when the pipe is full");
    run.signal(Signal::INT);
    let reading = thread::spawn(move || {
        let mut rows = Vec::new();
        reader.read_to_end(&mut rows).unwrap();
        rows
    });
    let ended = run.end();
    let streamed = reading.join().unwrap();
    ended.exits(0);
    check_rows_ahead(&ended);
    let succeeded = ended.err.split_once(" succeeded, 0 failed").unwrap().0.rsplit(' ').next().unwrap();
    let succeeded: u64 = succeeded.parse().unwrap();
    ended.check(succeeded >= 2_000, "the rows before Ctrl-C are in the account");
    ended.check(streamed == rows(succeeded).as_bytes(), "all rows in the account are written");
}

#[test]
fn stream_rows_ends_at_a_second_ctrl_c_if_nobody_reads() {
    let sandbox = Sandbox::new();
    let (reader, writer) = pipe();
    let mut run = sandbox.example("stream_rows").args(["--tell-every", "1000"]).stdout(writer).start();
    run.until_err_has("2000 rows, ");
    run.until_silent();
    run.interrupt_until_it_ends().exits(130);
    drop(reader);
}

#[test]
fn stream_rows_may_have_no_rows() {
    Sandbox::new().example("stream_rows").args(["--rows", "0"]).run().exits(0).out_is("");
}

#[test]
fn stream_rows_fails_if_its_rows_cannot_be_written() {
    let sandbox = Sandbox::new();
    let ended = sandbox.example("stream_rows").stdout(without_reader()).run();
    ended.exits(1).err_has("stream_rows: the sink failed after ").err_has(" items: Broken pipe");
    let ended = sandbox.example("stream_rows").args(["--rows", "5"]).stdout(without_reader()).run();
    ended.exits(1).err_has("cannot write the last rows: Broken pipe");
    let ended = sandbox.example("stream_rows").with_full_disk().run();
    ended.exits(1).err_has(" items: No space left on device");
}

#[test]
fn stream_rows_does_not_need_a_reader_of_its_progress() {
    let options = ["--rows", "1000", "--tell-every", "1"];
    Sandbox::new().example("stream_rows").args(options).stderr(without_reader()).run().exits(0);
}
