//! The example `picture_hashes`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::harness::{Ended, Program, Sandbox, without_reader};
use crate::pictures::{Samples, WHOLE, names, set_modified};

/// A copy of the samples, and a cache.
struct Pictures<'s> {
    sandbox: &'s Sandbox,
    samples: Arc<Samples>,
    folder: PathBuf,
}

impl<'s> Pictures<'s> {
    fn new(sandbox: &'s Sandbox) -> Self {
        let (samples, folder) = (Samples::shared(), sandbox.path("pictures"));
        samples.copy_to(&folder);
        Self { sandbox, samples, folder }
    }

    fn hashes(&self) -> Program<'s> {
        self.hashes_in(&self.sandbox.path("hashes.db"))
    }

    fn hashes_in(&self, store: &Path) -> Program<'s> {
        self.sandbox.example("picture_hashes").arg(&self.folder).arg("--store").arg(store)
    }

    /// Breaks all whole pictures. They keep the sizes and times of the samples, by which the cache identifies them.
    fn break_all(&self) {
        for name in names(&self.folder).iter().filter(|name| name.starts_with("picture-")) {
            let (path, sample) = (self.folder.join(name), self.samples.file(name));
            let file = File::create(&path).unwrap();
            file.set_len(sample.metadata().unwrap().len()).unwrap();
            set_modified(&path, &sample);
        }
    }

    fn restore(&self) {
        fs::remove_dir_all(&self.folder).unwrap();
        self.samples.copy_to(&self.folder);
    }

    /// The hash of a picture.
    fn hash(&self, hashes: &Ended, name: &str) -> String {
        let end = format!("  {}", self.folder.join(name).display());
        hashes.text().lines().find_map(|line| line.strip_suffix(&end)).unwrap().to_owned()
    }
}

/// Returns the number of hashes that came from the cache.
fn cached(ended: &Ended) -> usize {
    let before = ended.err.split_once(" cached").map(|(before, _)| before);
    before.map_or(0, |before| before.rsplit(' ').next().unwrap().parse().unwrap())
}

#[test]
fn picture_hashes_computes_only_what_is_not_in_its_cache() {
    let sandbox = Sandbox::new();
    let pictures = Pictures::new(&sandbox);
    let first = pictures.hashes().run();
    first.exits(1).err_has("57 succeeded, 3 failed");
    first.check(cached(&first) == 0, "nothing is in a new cache");
    let text = first.text();
    let different: BTreeSet<_> = text.lines().map(|line| &line[..16]).collect();
    first.check(different.len() >= 10, "pictures differ in their hashes");

    pictures.break_all();
    let second = pictures.hashes().run();
    second.check(cached(&second) == WHOLE, "nothing is computed").out_is(&first.out);
    second.err_has("57 succeeded, 3 failed");

    fs::copy(pictures.samples.file("picture-56.png"), pictures.folder.join("picture-00.png")).unwrap();
    let third = pictures.hashes().args(["--concurrency", "1"]).run();
    third.check(cached(&third) == WHOLE - 1, "the picture that has changed is computed");
    assert_eq!(pictures.hash(&third, "picture-00.png"), pictures.hash(&first, "picture-56.png"));

    pictures.restore();
    let other_version = pictures.hashes().args(["--version", "2"]).run();
    other_version.check(cached(&other_version) == 0, "all are computed").out_is(&first.out);
    let again = pictures.hashes().run();
    again.check(cached(&again) == WHOLE, "the earlier version is still there");
}

#[test]
fn picture_hashes_computes_each_picture_once_in_two_processes() {
    let sandbox = Sandbox::new();
    let pictures = Pictures::new(&sandbox);
    let (one, two) = (pictures.hashes().start(), pictures.hashes().start());
    let (one, two) = (one.end(), two.end());
    one.check(cached(&one) + cached(&two) == WHOLE, "each picture is computed once").out_is(&two.out);
    one.check(one.text().lines().count() == WHOLE, "both have all hashes");
}

#[test]
fn picture_hashes_gives_a_smaller_picture_the_same_hash() {
    let sandbox = Sandbox::new();
    let pictures = Pictures::new(&sandbox);
    let expected = pictures.hashes().run().out;
    let one = sandbox.folder("one");
    fs::copy(pictures.samples.file("picture-00.png"), one.join("picture-00.png")).unwrap();
    let half = ["--width", "80", "--height", "120"];
    sandbox.example("resize_images").args([&one, &pictures.folder]).args(half).run().exits(0);
    let ended = pictures.hashes().run();
    ended.out_is(expected).check(cached(&ended) == WHOLE - 1, "only the smaller picture is computed");
}

#[test]
fn picture_hashes_refuses_what_it_cannot_use() {
    let sandbox = Sandbox::new();
    let pictures = Pictures::new(&sandbox);
    let run = sandbox.example("picture_hashes").arg(sandbox.path("not there")).arg("--store");
    run.arg(sandbox.path("hashes.db")).run().is_refused("cannot list the pictures: No such file");
    pictures
        .hashes()
        .args(["--concurrency", "0"])
        .run()
        .is_refused("concurrency must be at least 1 (unbounded_concurrency() removes the limit), got 0");
    let ended = pictures.hashes_in(&pictures.folder.join("picture-01.jpg")).run();
    ended.err_has("cannot open the store: the store is damaged");
}

#[test]
fn picture_hashes_fails_if_its_hashes_cannot_be_printed() {
    let sandbox = Sandbox::new();
    let ended = Pictures::new(&sandbox).hashes().stdout(without_reader()).run();
    ended.exits(1).err_has("cannot print the hashes: Broken pipe");
}
