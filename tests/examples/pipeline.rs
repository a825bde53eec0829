//! The example `pipeline`: its reports and its account.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{Program, Sandbox, lines, without_reader};
use crate::load_shards::values;

/// A folder with CSV files, and one for their reports.
pub(crate) struct Folders<'s> {
    sandbox: &'s Sandbox,
    pub(crate) csv: PathBuf,
    pub(crate) reports: PathBuf,
}

impl<'s> Folders<'s> {
    pub(crate) fn new(sandbox: &'s Sandbox) -> Self {
        Self { sandbox, csv: sandbox.folder("csv"), reports: sandbox.folder("reports") }
    }

    /// Writes a CSV file with these readings.
    pub(crate) fn add(&self, name: &str, readings: &[&str]) {
        let text: String = ["sensor,value"].iter().chain(readings).flat_map(|line| [line, "\n"]).collect();
        fs::write(self.file(name), text).unwrap();
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.csv.join(name).with_extension("csv")
    }

    pub(crate) fn report(&self, name: &str) -> PathBuf {
        self.reports.join(name).with_extension("json")
    }

    /// Makes a report a pipe. A write to it blocks until it is read, so the second task waits.
    pub(crate) fn hold_report(&self, name: &str) -> PathBuf {
        self.sandbox.fifo(&format!("reports/{name}.json"))
    }

    pub(crate) fn pipeline(&self, options: &[&str]) -> Program<'s> {
        pipeline(self.sandbox, &self.csv, &self.reports, options)
    }

    /// The account of some of the files, with the end of each.
    pub(crate) fn account(&self, ends: &[(&str, &str)]) -> String {
        ends.iter().map(|(name, end)| format!("{}: {end}\n", self.file(name).display())).collect()
    }
}

fn pipeline<'s>(sandbox: &'s Sandbox, csv: &Path, reports: &Path, options: &[&str]) -> Program<'s> {
    sandbox.example("pipeline").args([csv, reports]).args(options)
}

#[test]
fn pipeline_reports_every_reading_of_the_shards() {
    let sandbox = Sandbox::new();
    let ended = sandbox.example("pipeline").folder(&sandbox.path(".")).run();
    let text = ended.exits(0).text();
    let done = text.lines().filter(|line| line.contains(".csv: done, ") && line.ends_with(" readings"));
    ended.check(done.count() == 6, "each shard has its end in the account");
    let reports = fs::read_dir(sandbox.path("target/pipeline")).unwrap().map(|entry| entry.unwrap().path());
    let readings = |path: PathBuf| -> u64 {
        let report: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        report.as_object().unwrap().values().map(|sensor| sensor["readings"].as_u64().unwrap()).sum()
    };
    assert_eq!(reports.map(readings).sum::<u64>(), values().len() as u64);
}

const REPORT: &str = r#"{
  "s1": {
    "readings": 3,
    "min": 1.0,
    "mean": 3.0,
    "max": 6.0
  },
  "s2": {
    "readings": 1,
    "min": -4.5,
    "mean": -4.5,
    "max": -4.5
  }
}"#;

#[test]
fn pipeline_has_the_end_of_every_file_in_one_account() {
    let sandbox = Sandbox::new();
    let folders = Folders::new(&sandbox);
    folders.add("good", &["s1,1", "s2,-4.5", "s1,2", "s1,6"]);
    folders.add("last", &["s1,7"]);
    folders.add("none", &[]);
    folders.add("unwritable", &["s1,1"]);
    folders.add("word", &["s1,1", "s1,many"]);
    folders.add("short", &["s1"]);
    sandbox.file("csv/header.csv", "value,sensor\n");
    sandbox.file("csv/latin1.csv", b"sensor,value\ncaf\xe9,1\n");
    sandbox.file("csv/notes.txt", "not asked for\n");
    fs::create_dir(folders.report("unwritable")).unwrap();
    let unwritable = format!(
        "report failed after 1 attempt: cannot write {}: Is a directory (os error 21)",
        folders.report("unwritable").display()
    );
    let account = folders.account(&[
        ("good", "done, 4 readings"),
        ("header", r#"parse failed after 1 attempt: the header must be "sensor,value", got "value,sensor""#),
        ("last", "done, 1 readings"),
        ("latin1", "parse failed after 1 attempt: stream did not contain valid UTF-8"),
        ("none", "report failed after 1 attempt: there are no readings"),
        ("short", r#"parse failed after 1 attempt: line 2 has no value: "s1""#),
        ("unwritable", &unwritable),
        ("word", r#"parse failed after 1 attempt: line 3 has the value "many": invalid float literal"#),
    ]);
    let ended = folders.pipeline(&[]).run();
    ended.exits(0).out_is(&account).err_has("4 succeeded, 4 failed").err_has("2 succeeded, 2 failed");
    assert_eq!(fs::read_to_string(folders.report("good")).unwrap(), REPORT);
    folders.pipeline(&["--parsers", "1", "--writers", "1"]).run().out_is(&account);
}

#[test]
fn pipeline_refuses_what_it_cannot_use() {
    let sandbox = Sandbox::new();
    let folders = Folders::new(&sandbox);
    folders.add("1", &["s1,1"]);
    let missing = sandbox.path("missing");
    let why = format!("cannot list the folder {}: No such file", missing.display());
    pipeline(&sandbox, &missing, &folders.reports, &[]).run().is_refused(&why);
    let why = format!("cannot make the folder {}: File exists", folders.file("1").display());
    pipeline(&sandbox, &folders.csv, &folders.file("1"), &[]).run().is_refused(&why);
    folders.pipeline(&["--parsers", "0"]).run().is_refused(
        "--parsers: concurrency must be at least 1 (unbounded_concurrency() removes the limit), got 0",
    );
    folders.pipeline(&["--writers", "0"]).run().is_refused(
        "--writers: concurrency must be at least 1 (unbounded_concurrency() removes the limit), got 0",
    );
    pipeline(&sandbox, &sandbox.folder("empty"), &folders.reports, &[]).run().exits(0).out_is("");
}

#[test]
fn pipeline_fails_if_its_account_cannot_be_printed() {
    let sandbox = Sandbox::new();
    let folders = Folders::new(&sandbox);
    folders.add("1", &["s1,1"]);
    let ended = folders.pipeline(&[]).with_full_disk().run();
    ended.exits(1).err_has("cannot print the report: No space left on device");
    let ended = folders.pipeline(&[]).stdout(without_reader()).run();
    ended.exits(1).err_has("cannot print the report: Broken pipe");
}

/// The numbers of files ahead that the progress has named so far.
fn files_ahead(progress: &str) -> Vec<usize> {
    let ahead = |line: &str| line.strip_prefix("files ahead: ")?.split(' ').next()?.parse().ok();
    progress.lines().filter_map(ahead).collect()
}

#[test]
fn pipeline_does_not_read_further_ahead_than_its_limit() {
    let sandbox = Sandbox::new();
    let folders = Folders::new(&sandbox);
    let names: Vec<_> = (10..30).map(|number| number.to_string()).collect();
    let reports: Vec<_> = names.iter().map(|name| folders.hold_report(name)).collect();
    names.iter().for_each(|name| folders.add(name, &[&format!("s1,{name}")]));
    let mut run = folders.pipeline(&["--parsers", "4", "--writers", "2"]).start();
    let mut before = 0;
    run.until("the first task is ahead, and waits", |run| match files_ahead(&run.err())[..] {
        [.., last, now] if last == now => {
            before = now;
            (6..=10).contains(&now)
        }
        _ => false,
    });
    let told = lines(run.err());
    run.until("two more lines of progress", |run| lines(run.err()) >= told + 2);
    assert_eq!(files_ahead(&run.err()).last(), Some(&before), "the first task waits for the second");
    sandbox.read_fifos(&reports);
    let ended = run.end();
    ended.exits(0);
    let done = ended.text().matches(": done, 1 readings\n").count();
    ended.check(done == names.len(), "all files are reported");
    let most = ended.err.lines().find_map(|line| line.strip_prefix("maximum of files ahead: "));
    let most: usize = most.unwrap().strip_suffix(" of at most 10").unwrap().parse().unwrap();
    ended.check(before <= most && most <= 10, "it was never further ahead");
}
