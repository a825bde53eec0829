//! The example `hash_files`.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::process::{Signal, geteuid};

use crate::harness::{Ended, Sandbox, lines, without_reader};

/// Names that a list of checksums must escape, names that a shell would change, and a name that is not UTF-8. Some are
/// links to files. Sorted by path: the files of a folder are at the position of the folder.
const FILES: [&[u8]; 13] = [
    b"./*",
    b"./-c",
    b"./a dir/ two  spaces ",
    b"./back\\slash",
    b"./caf\xe9",
    b"./carriage\rreturn",
    b"./empty",
    b"./larger than a buffer",
    b"./nested/deeper/file",
    b"./nested/link to a file",
    b"./nested-but-not/file",
    b"./new\nline",
    b"./plain",
];

fn path_of(name: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(name))
}

/// A tree with all kinds of files, and with some that have no content.
fn make_tree(sandbox: &Sandbox) -> PathBuf {
    let tree = sandbox.folder("tree");
    for folder in ["nested/deeper", "nested-but-not", "a dir", "empty dir"] {
        fs::create_dir_all(tree.join(folder)).unwrap();
    }
    for name in FILES.into_iter().filter(|name| !name.ends_with(b"link to a file")) {
        let content = match name {
            b"./empty" => Vec::new(),
            b"./larger than a buffer" => vec![0; 3_000_000],
            name => [b"content of ", name].concat(),
        };
        fs::write(tree.join(path_of(name)), content).unwrap();
    }
    sandbox.link("tree/nested/link to a file", "../plain");
    sandbox.link("tree/link to a directory", "nested");
    sandbox.fifo("tree/pipe");
    sandbox.link("tree/link to a pipe", "pipe");
    UnixListener::bind(tree.join("socket")).unwrap();
    tree
}

fn check_with_sha256sum(sandbox: &Sandbox, folder: &Path, sums: &Ended) {
    let check = sandbox.program("sha256sum").folder(folder).args(["--check", "--quiet"]);
    check.input(&sums.out).run().exits(0);
}

#[test]
fn hash_files_prints_what_sha256sum_prints_sorted_by_path() {
    let sandbox = Sandbox::new();
    let tree = make_tree(&sandbox);
    let sums = sandbox.example("hash_files").folder(&tree).run();
    sums.exits(0).out_is(sandbox.sha256sum(&tree, FILES.map(path_of)));
    sums.err_has(&format!("{} items in ", FILES.len()));
    check_with_sha256sum(&sandbox, &tree, &sums);
}

#[test]
fn hash_files_prints_paths_as_walked() {
    let sandbox = Sandbox::new();
    let tree = make_tree(&sandbox);
    let sums = sandbox.example("hash_files").arg(&tree).args(["--concurrency", "1"]).run();
    sums.exits(0);
    check_with_sha256sum(&sandbox, Path::new("/"), &sums);

    let link = sandbox.link("link", "tree");
    let sums = sandbox.example("hash_files").arg(link).run();
    sums.check(lines(&sums.out) == FILES.len(), "a link given as the tree is followed");
    check_with_sha256sum(&sandbox, Path::new("/"), &sums);

    let plain = tree.join("plain");
    let sums = sandbox.example("hash_files").arg(&plain).run();
    sums.out_has(&format!("  {}\n", plain.display()));
    sandbox.example("hash_files").arg(tree.join("empty dir")).run().exits(0).out_is("");
}

/// A folder with a good file, and with a link to nothing that is sorted before it. Also returns the good file's line.
fn make_broken(sandbox: &Sandbox) -> (PathBuf, Vec<u8>) {
    let broken = sandbox.folder("broken");
    let good = sandbox.file("broken/good", "good");
    sandbox.link("broken/dangling", "nowhere");
    let sums = sandbox.sha256sum(&broken, [good]);
    (broken, sums)
}

#[test]
fn hash_files_lists_a_file_that_fails_and_hashes_the_others() {
    let sandbox = Sandbox::new();
    let (broken, good) = make_broken(&sandbox);
    let failure = format!("{}/dangling: failed after 1 attempt: No such file or directory", broken.display());
    let ended = sandbox.example("hash_files").arg(&broken).run();
    ended.exits(1).err_has(&failure).out_is(&good);
    ended.err_has("hash_files: 1 of 2 items failed, 0 allowed");
    let ended = sandbox.example("hash_files").arg(&broken).args(["--min-success-ratio", "0.5"]).run();
    ended.exits(0).err_has(&failure).out_is(&good);
    sandbox.example("hash_files").arg(&broken).args(["--min-success-ratio", "0.51"]).run().exits(1);
    let ended = sandbox.example("hash_files").arg(&broken).args(["--fail-fast", "--concurrency", "1"]).run();
    ended.exits(1).err_has("fail_fast is set").out_is("");

    sandbox.link("broken/circle", "circle");
    let ended = sandbox.example("hash_files").arg(&broken).args(["--min-success-ratio", "0.3"]).run();
    ended.err_has(&failure).err_has(&format!("{}/circle: failed", broken.display()));
    let missing = sandbox.path("not there");
    let ended = sandbox.example("hash_files").arg(&missing).run();
    ended.is_refused(&format!("no such directory: {}", missing.display()));
}

#[test]
fn hash_files_writes_a_page_about_its_run() {
    let sandbox = Sandbox::new();
    let (broken, good) = make_broken(&sandbox);
    let page = sandbox.path("run.html");
    let ended = sandbox.example("hash_files").arg(&broken).arg("--report").arg(&page).run();
    ended.exits(1).out_is(&good).err_has(&format!(
        "item 0 ({}/dangling) failed first, after 1 attempt: No such file",
        broken.display()
    ));
    let page = fs::read_to_string(page).unwrap();
    let dangling = format!("{}/dangling", broken.display());
    for text in
        ["<h1>hash_files</h1>", "failed: 1 item failed, 0 allowed", "No such file or directory", &dangling]
    {
        assert!(page.contains(text), "the page has no {text}");
    }
    let ended = sandbox.example("hash_files").arg(&broken).args(["--report", "no/folder/run.html"]).run();
    ended.exits(1).err_has("the report cannot be written to no/folder/run.html: No such file or directory");
}

#[test]
fn hash_files_lists_what_it_may_not_read() {
    let sandbox = Sandbox::new();
    let locked = sandbox.folder("locked");
    let (dir, file) = (sandbox.folder("locked/dir"), sandbox.file("locked/file", "good"));
    let set_mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let program = if geteuid().is_root() {
        // Root may read everything, and no other user may reach the target folder.
        let copy = sandbox.path("hash_files");
        fs::copy(crate::binary::path("hash_files"), &copy).unwrap();
        set_mode(&sandbox.path("."), 0o755);
        sandbox.program(copy).user(65_534)
    } else {
        sandbox.example("hash_files")
    };
    set_mode(&dir, 0);
    set_mode(&file, 0);
    let ended = program.arg(&locked).run();
    set_mode(&dir, 0o755);
    let denied = |path: &Path| format!("{}: failed after 1 attempt: Permission denied", path.display());
    ended.exits(1).err_has(&denied(&file)).err_has(&denied(&dir));
}

#[test]
fn hash_files_refuses_what_the_task_refuses() {
    let sandbox = Sandbox::new();
    let refusals = [
        ("--concurrency", "0", "error: --concurrency must be at least 1, got 0\n"),
        ("--min-success-ratio", "95", "error: --min-success-ratio must be between 0 and 1, got 95\n"),
        ("--min-success-ratio", "NaN", "error: --min-success-ratio must be between 0 and 1, got NaN\n"),
        ("--timeout-ms", "0", "error: --timeout-ms must be greater than zero, got 0\n"),
    ];
    for (option, value, why) in refusals {
        sandbox.example("hash_files").arg(sandbox.path(".")).args([option, value]).run().is_refused(why);
    }
}

#[test]
fn hash_files_fails_if_its_sums_cannot_be_written() {
    let sandbox = Sandbox::new();
    let (folder, _) = make_broken(&sandbox);
    let good = folder.join("good");
    let ended = sandbox.example("hash_files").arg(&good).with_full_disk().run();
    ended.exits(1).err_has("cannot print the sums: No space left on device");
    let ended = sandbox.example("hash_files").arg(&good).stdout(without_reader()).run();
    ended.exits(1).err_has("cannot print the sums: Broken pipe");
}

/// A folder with a file that takes long to hash: it is a hole, so that it needs no space on the disk. Also returns the line of
/// the file before it.
fn make_slow(sandbox: &Sandbox) -> (PathBuf, Vec<u8>) {
    let slow = sandbox.folder("slow");
    let quick = sandbox.file("slow/a", "quick");
    File::create(slow.join("b")).unwrap().set_len(100 << 30).unwrap();
    sandbox.file("slow/c", "never started");
    let sums = sandbox.sha256sum(&slow, [quick]);
    (slow, sums)
}

#[test]
fn hash_files_gives_its_account_at_ctrl_c() {
    let sandbox = Sandbox::new();
    let (slow, quick) = make_slow(&sandbox);
    let mut run = sandbox.example("hash_files").arg(slow).args(["--concurrency", "1"]).start();
    run.until("the sum of the first file", |run| run.out().ends_with(b"slow/a\n"));
    run.signal(Signal::INT);
    let ended = run.end();
    ended.exits(130).out_is(quick).err_has("hash_files: cancelled after 1 of 2 items");
    ended.err_has("1 succeeded, 0 failed, 1 cancelled");
}

#[test]
fn hash_files_gives_up_a_file_that_takes_too_long() {
    let sandbox = Sandbox::new();
    let (slow, _) = make_slow(&sandbox);
    let limits = ["--timeout-ms", "1500", "--retries", "1", "--min-success-ratio", "0.6"];
    let ended = sandbox.example("hash_files").arg(&slow).args(limits).run();
    let failure = "failed after 2 attempts: timed out at the timeout_per_attempt of 1.5s";
    ended.exits(0).err_has(&format!("{}/b: {failure}", slow.display())).err_has("1 retry, 2 timeouts");
    ended.check(lines(&ended.out) == 2, "the other files are hashed");
}
