//! The example `resize_images`.

use std::fs;
use std::path::{Path, PathBuf};

use image::{ImageFormat, RgbaImage};
use rustix::process::Signal;

use crate::harness::{Ended, Program, Sandbox, without_reader};
use crate::pictures::{Samples, WHOLE, assert_whole, names};

const BROKEN: [&str; 3] = ["broken-empty.png", "broken-half.png", "broken-text.jpg"];

fn resize<'s>(sandbox: &'s Sandbox, from: &Path, to: &Path, options: &[&str]) -> Program<'s> {
    sandbox.example("resize_images").args([from, to]).args(options)
}

#[test]
fn resize_images_makes_samples_and_tolerates_the_broken_ones() {
    let sandbox = Sandbox::new();
    let ended = sandbox.example("resize_images").folder(&sandbox.path(".")).run();
    ended.exits(0).err_has("60 items in ");
    assert_whole(&sandbox.path("target/resize_images/resized"), (224, 224), WHOLE);
    for name in BROKEN {
        let failure = "failed after 1 attempt: cannot resize it: ";
        ended.err_has(&format!("target/resize_images/raw/{name}: {failure}"));
    }
}

#[test]
fn resize_images_judges_by_the_ratio_and_replaces_earlier_pictures() {
    let (sandbox, samples) = (Sandbox::new(), Samples::shared());
    let (raw, small) = (sandbox.path("raw"), sandbox.path("small"));
    samples.copy_to(&raw);
    resize(&sandbox, &raw, &small, &["--width", "48", "--height", "32"]).run().exits(0);
    assert_whole(&small, (48, 32), WHOLE);
    sandbox.file("raw/notes.txt", "");
    let size = ["--width", "16", "--height", "32"];
    let ended = resize(&sandbox, &raw, &small, &size).args(["--min-success-ratio", "0.96"]).run();
    ended.exits(1).err_has("resize_images: 3 of 60 items failed, 2 allowed");
    let ended = resize(&sandbox, &raw, &small, &size).args(["--concurrency", "1"]).run();
    ended.exits(0).err_has("57 succeeded, 3 failed");
    assert_whole(&small, (16, 32), WHOLE);
}

/// A folder with two of the samples.
fn make_few(sandbox: &Sandbox, samples: &Samples) -> PathBuf {
    let few = sandbox.folder("few");
    for name in ["picture-00.png", "picture-01.jpg"] {
        fs::copy(samples.file(name), few.join(name)).unwrap();
    }
    few
}

#[test]
fn resize_images_fits_any_shape() {
    let (sandbox, samples) = (Sandbox::new(), Samples::shared());
    let few = make_few(&sandbox, &samples);
    let (wide, high, clear) = (sandbox.path("wide"), sandbox.path("high"), sandbox.path("clear"));
    resize(&sandbox, &few, &wide, &["--width", "10000", "--height", "1"]).run();
    assert_whole(&wide, (10_000, 1), 2);
    resize(&sandbox, &few, &high, &["--width", "1", "--height", "10000"]).run();
    assert_whole(&high, (1, 10_000), 2);
    // A transparent picture may have the name of a JPEG.
    RgbaImage::new(1, 1).save_with_format(few.join("clear.jpg"), ImageFormat::Png).unwrap();
    resize(&sandbox, &few, &clear, &[]).run();
    assert_whole(&clear, (224, 224), 3);
}

#[test]
fn resize_images_retries_what_cannot_be_read() {
    let (sandbox, samples) = (Sandbox::new(), Samples::shared());
    let (few, retried) = (make_few(&sandbox, &samples), sandbox.path("retried"));
    // The link leads nowhere until the first attempt has failed.
    sandbox.link("few/late.png", "../late");
    let ended = resize(&sandbox, &few, &retried, &["--retries", "1"]).run();
    ended.exits(1);
    ended.err_has("few/late.png: failed after 2 attempts: cannot read it: No such file or directory");
    let mut run = resize(&sandbox, &few, &retried, &["--retries", "8"]).start();
    run.until_err_has("few/late.png: attempt 1 failed, the next is in ");
    fs::copy(samples.file("picture-02.png"), sandbox.path("new")).unwrap();
    fs::rename(sandbox.path("new"), sandbox.path("late")).unwrap();
    run.end().exits(0);
    assert_whole(&retried, (224, 224), 3);
}

#[test]
fn resize_images_leaves_nothing_of_a_picture_that_cannot_be_written() {
    let (sandbox, samples) = (Sandbox::new(), Samples::shared());
    let (few, taken) = (make_few(&sandbox, &samples), sandbox.folder("taken"));
    let blocked = sandbox.folder("taken/picture-00.png");
    let ended = resize(&sandbox, &few, &taken, &["--retries", "0", "--min-success-ratio", "0.5"]).run();
    ended.exits(0).err_has("few/picture-00.png: failed after 1 attempt: cannot write it: ");
    fs::remove_dir(blocked).unwrap();
    assert_whole(&taken, (224, 224), 1);
}

/// Stops a run after its first picture. All pictures in the folder are whole, but there are not all of them.
fn stop_early(signal: Signal) -> Ended {
    let (sandbox, samples) = (Sandbox::new(), Samples::shared());
    let stopped = sandbox.path("stopped");
    let mut run = resize(&sandbox, &samples.path(), &stopped, &["--width", "700", "--height", "700"]).start();
    let has_picture = || names(&stopped).iter().any(|name| name.starts_with("picture"));
    run.until("a picture", |_| stopped.exists() && has_picture());
    run.signal(signal);
    let ended = run.end();
    if signal == Signal::KILL {
        // A killed program cannot remove its temporary files.
        let temporary = names(&stopped).into_iter().filter(|name| name.ends_with(".tmp"));
        temporary.for_each(|name| fs::remove_file(stopped.join(name)).unwrap());
    }
    let pictures = names(&stopped).len();
    ended.check(pictures < WHOLE, "it ends before the last picture");
    assert_whole(&stopped, (700, 700), pictures);
    ended
}

#[test]
fn resize_images_finishes_its_pictures_at_ctrl_c() {
    let ended = stop_early(Signal::INT);
    ended.exits(1).err_has("resize_images: cancelled after ").err_has(" 0 cancelled, ");
}

#[test]
fn resize_images_leaves_no_half_picture_if_it_is_killed() {
    stop_early(Signal::KILL).is_killed_by(Signal::KILL);
}

#[test]
fn resize_images_names_a_picture_only_when_it_is_complete() {
    let (sandbox, samples) = (Sandbox::new(), Samples::shared());
    let torn = sandbox.path("torn");
    // A limit on the size of a file kills the program in the middle of a write.
    let limited = ["-c", "ulimit -c 0; ulimit -f 2; exec \"$0\" \"$@\""];
    let run = sandbox.program("sh").args(limited).arg(crate::binary::path("resize_images"));
    run.args([samples.path(), torn.clone()]).args(["--width", "700"]).run().is_killed_by(Signal::XFSZ);
    let names = names(&torn);
    assert!(!names.is_empty(), "the half of a picture is there");
    assert!(names.iter().all(|name| name.starts_with('.') && name.ends_with(".tmp")), "{names:?}");
}

#[test]
fn resize_images_refuses_folders_that_it_cannot_use() {
    let (sandbox, samples) = (Sandbox::new(), Samples::shared());
    let (raw, notes, missing) = (samples.path(), sandbox.file("notes.txt", ""), sandbox.path("not there"));
    let why = format!("cannot list the folder {}: No such file", missing.display());
    resize(&sandbox, &missing, &sandbox.path("small"), &[]).run().is_refused(&why);
    resize(&sandbox, &raw, &raw.join("../raw"), &[]).run().is_refused("must not be the input folder");
    let why = format!("cannot make the folder {}: File exists", notes.display());
    resize(&sandbox, &raw, &notes, &[]).run().is_refused(&why);
    let ended = sandbox.example("resize_images").args(["--min-success-ratio", "2"]).run();
    ended.is_refused("min_success_ratio must be between 0 and 1, got 2");
}

#[test]
fn resize_images_does_not_need_a_reader_of_its_account() {
    let (sandbox, samples) = (Sandbox::new(), Samples::shared());
    let few = make_few(&sandbox, &samples);
    resize(&sandbox, &few, &sandbox.path("quiet"), &[]).stderr(without_reader()).run().exits(0);
}
