//! The example `pipeline`: if one task ends, so does the other, and nothing is lost.

use std::fs;
use std::ops::Deref;

use rustix::process::Signal;

use crate::harness::{Running, Sandbox, has_reader, lines, open_and_close};
use crate::pipeline::Folders;

/// Two lines of progress with this state: a file is being reported, and another one waits.
const HELD: &str = "files ahead: 2 of at most 2\nfiles ahead: 2 of at most 2\n";

/// Starts a pipeline with one permit for each task, and waits until both wait for the report of the first file.
fn hold<'s>(folders: &Folders<'s>, options: &[&str]) -> Running<'s> {
    let mut run = folders.pipeline(&["--parsers", "1", "--writers", "1"]).args(options).start();
    run.until_err_has(HELD);
    run
}

/// Four files. The first report and the third file are pipes.
fn held_at_both_ends<'s>(sandbox: &'s Sandbox) -> Folders<'s> {
    let folders = Folders::new(sandbox);
    ["1", "2", "4"].iter().for_each(|name| folders.add(name, &[&format!("s1,{name}")]));
    sandbox.fifo("csv/3.csv");
    folders.hold_report("1");
    folders
}

#[test]
fn pipeline_reports_what_was_parsed_before_ctrl_c() {
    let sandbox = Sandbox::new();
    let folders = held_at_both_ends(&sandbox);
    let mut run = hold(&folders, &[]);
    assert!(!has_reader(&folders.file("3")), "the file after the two is not opened");
    run.signal(Signal::INT);
    // In a second, the pipeline handles the signal.
    let told = lines(run.err());
    run.until("two more lines of progress", |run| lines(run.err()) >= told + 2);
    let first = sandbox.read_fifo(&folders.report("1"));
    let ended = run.end();
    ended.exits(1).out_is(folders.account(&[
        ("1", "done, 1 readings"),
        ("2", "done, 1 readings"),
        ("3", "not parsed"),
        ("4", "not parsed"),
    ]));
    ended.err_has("report: the source failed after 2 items: parse: cancelled after 2 of 4 items");
    for report in [first, fs::read(folders.report("2")).unwrap()] {
        assert!(report.ends_with(b"\n}"), "the reports are whole");
    }
}

#[test]
fn pipeline_ends_immediately_at_a_second_ctrl_c() {
    let sandbox = Sandbox::new();
    hold(&held_at_both_ends(&sandbox), &[]).interrupt_until_it_ends().exits(130);
}

/// No file may fail, but the third does. The report of the first is a pipe.
const ONE_TOO_MANY: [&str; 6] = ["--parsers", "1", "--writers", "2", "--max-failures", "0"];

fn with_a_broken_file<'s>(sandbox: &'s Sandbox) -> Folders<'s> {
    let folders = Folders::new(sandbox);
    ["1", "2", "4"].iter().for_each(|name| folders.add(name, &[&format!("s1,{name}")]));
    folders.add("3", &["s1,broken"]);
    folders.hold_report("1");
    folders
}

#[test]
fn pipeline_ends_the_second_task_if_the_first_fails() {
    let sandbox = Sandbox::new();
    let folders = with_a_broken_file(&sandbox);
    let mut run = folders.pipeline(&ONE_TOO_MANY).args(["--grace", "60"]).start();
    run.until_err_has("files ahead: 1 of at most 4");
    sandbox.read_fifo(&folders.report("1"));
    let ended = run.end();
    ended.exits(1).out_is(folders.account(&[
        ("1", "done, 1 readings"),
        ("2", "done, 1 readings"),
        ("3", r#"parse failed after 1 attempt: line 2 has the value "broken": invalid float literal"#),
        ("4", "not parsed"),
    ]));
    ended.err_has(concat!(
        "report: the source failed after 2 items: ",
        "parse: 1 of 4 items failed, 0 allowed; item 2 failed first, after 1 attempt"
    ));
}

#[test]
fn pipeline_does_not_wait_longer_than_the_grace_for_a_report() {
    let sandbox = Sandbox::new();
    let folders = with_a_broken_file(&sandbox);
    let ended = folders.pipeline(&ONE_TOO_MANY).args(["--grace", "0"]).run();
    ended.exits(1).out_has(&folders.account(&[("1", "parsed, not reported")]));
}

#[test]
fn pipeline_ends_the_first_task_if_the_second_fails() {
    let sandbox = Sandbox::new();
    let folders = Folders::new(&sandbox);
    // The report does not fit into the pipe, so it fails when its reader goes away.
    let sensors: Vec<_> = (1..=20_000).map(|sensor| format!("s{sensor},1")).collect();
    folders.add("1", &sensors.iter().map(Deref::deref).collect::<Vec<_>>());
    ["2", "3"].iter().for_each(|name| folders.add(name, &[&format!("s1,{name}")]));
    let report = folders.hold_report("1");
    let run = hold(&folders, &["--max-failures", "0"]);
    open_and_close(&report);
    let ended = run.end();
    let broken = format!(
        "report failed after 1 attempt: cannot write {}: Broken pipe (os error 32)",
        report.display()
    );
    ended.exits(1).out_is(folders.account(&[
        ("1", &broken),
        ("2", "parsed, not reported"),
        ("3", "not parsed"),
    ]));
    ended.err_has("report: 1 of 1 item failed, 0 allowed; item 0 failed first, after 1 attempt");
}
