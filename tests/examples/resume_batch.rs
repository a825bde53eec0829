//! The example `resume_batch`: the files that it verifies and the input that it refuses.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::harness::{Program, Sandbox, without_reader};

/// The number of bytes of a large file that the example reads between two checkpoints.
pub(crate) const SECTION: usize = 64 << 20;

/// The content of a large file, repeated up to a section, before its last line.
pub(crate) const CONTENT: &[u8] = &[b'a'; 1 << 20];

/// Another large file of the same size.
pub(crate) const OTHER_CONTENT: &[u8] = &[b'b'; 1 << 20];

/// Forty files with the names 10 to 49, and a list of their checksums.
pub(crate) struct Batch<'s> {
    pub(crate) sandbox: &'s Sandbox,
    folder: PathBuf,
    pub(crate) list: PathBuf,
    store: PathBuf,
}

impl<'s> Batch<'s> {
    pub(crate) fn new(sandbox: &'s Sandbox) -> Self {
        let folder = sandbox.folder("batch");
        let batch = Self { sandbox, folder, list: sandbox.path("sums"), store: sandbox.path("runs.db") };
        (10..50).for_each(|number| batch.write(number, &format!("file {number}\n")));
        batch.list_all();
        batch
    }

    /// One in which number 25 is larger than a section.
    pub(crate) fn with_large_file(sandbox: &'s Sandbox) -> Self {
        let batch = Self::new(sandbox);
        fs::rename(batch.large_file(CONTENT), batch.file(25)).unwrap();
        batch.list_all();
        batch
    }

    fn list_all(&self) {
        let files = (10..50).map(|number| self.file(number));
        fs::write(&self.list, self.sandbox.sha256sum(Path::new("."), files)).unwrap();
    }

    pub(crate) fn file(&self, number: u32) -> PathBuf {
        self.folder.join(number.to_string())
    }

    pub(crate) fn write(&self, number: u32, text: &str) {
        fs::write(self.file(number), text).unwrap();
    }

    /// Writes a file with a section of this content, and a line. It is not in the batch yet.
    pub(crate) fn large_file(&self, content: &[u8]) -> PathBuf {
        let path = self.sandbox.path("large");
        let mut file = File::create(&path).unwrap();
        (0..SECTION / content.len()).for_each(|_| file.write_all(content).unwrap());
        file.write_all(b"the end\n").unwrap();
        path
    }

    /// The checksum of a file.
    pub(crate) fn sum(&self, number: u32) -> String {
        let line = self.sandbox.sha256sum(Path::new("."), [self.file(number)]);
        String::from_utf8(line).unwrap().split(' ').next().unwrap().to_owned()
    }

    /// Replaces a file's checksum in the list.
    pub(crate) fn list_sum(&self, number: u32, sum: &str) {
        let list = fs::read_to_string(&self.list).unwrap();
        let file = self.file(number).display().to_string();
        let line =
            |line: &str| if line.ends_with(&file) { format!("{sum}  {file}\n") } else { format!("{line}\n") };
        fs::write(&self.list, list.lines().map(line).collect::<String>()).unwrap();
    }

    /// Returns the output of `sha256sum` for all files.
    pub(crate) fn verified(&self) -> Vec<u8> {
        self.sandbox.program("sha256sum").arg("--check").arg(&self.list).run().out
    }

    pub(crate) fn run(&self, id: &str) -> Program<'s> {
        self.run_of(&self.list, &self.store, id)
    }

    fn run_of(&self, list: &Path, store: &Path, id: &str) -> Program<'s> {
        let run = self.sandbox.example("resume_batch").arg(list).arg("--store").arg(store);
        run.args(["--run", id])
    }
}

#[test]
fn resume_batch_prints_what_sha256sum_prints_and_repeats_it_without_the_files() {
    let sandbox = Sandbox::new();
    let batch = Batch::with_large_file(&sandbox);
    let expected = batch.verified();
    let ended = batch.run("undisturbed").run();
    ended.exits(0).out_is(&expected).err_has("run undisturbed: new").err_lacks(" recovered");
    fs::rename(sandbox.path("batch"), sandbox.path("away")).unwrap();
    let ended = batch.run("undisturbed").run();
    ended.exits(0).out_is(&expected);
    ended.err_has("run undisturbed: completed; 40 files verified, 0 failed");
    let counts = "0 failed, 0 cancelled, 0 not started; 0 retries, 0 timeouts, 0 panics, 40 recovered";
    ended.err_has(&format!("40 succeeded, {counts}"));
}

#[test]
fn resume_batch_refuses_what_it_cannot_use() {
    let sandbox = Sandbox::new();
    let batch = Batch::new(&sandbox);
    let (missing, no_list) = (sandbox.path("no sums"), sandbox.file("rows", "1,2,3\n"));
    let ended = batch.run_of(&missing, &batch.store, "nightly").run();
    ended.is_refused(&format!("cannot read {}: No such file", missing.display()));
    let ended = batch.run_of(&no_list, &batch.store, "nightly").run();
    ended.is_refused(&format!("line 1 of {}: ", no_list.display()));
    batch
        .run("nightly")
        .args(["--concurrency", "0"])
        .run()
        .is_refused("concurrency must be at least 1 (unbounded_concurrency() removes the limit), got 0");
    let ended = batch.run_of(&batch.list, &batch.list, "nightly").run();
    ended.exits(1).err_has("cannot open the store: the store is damaged");
    let ended = batch.run_of(&batch.list, &sandbox.path("not there/runs.db"), "nightly").run();
    ended.err_has("cannot open the store: opening the SQLite store: ");
}

#[test]
fn resume_batch_ends_if_nobody_reads_its_output() {
    let sandbox = Sandbox::new();
    let ended = Batch::new(&sandbox).run("for nobody").stdout(without_reader()).run();
    ended.exits(1).err_has("verify_files: the sink failed after ");
}
