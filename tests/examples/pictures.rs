//! Pictures for the tests: the samples of `resize_images`, and checks of the results.

use std::fs::{self, File, FileTimes};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use crate::folder::Folder;
use crate::harness::Sandbox;

/// The number of the 60 samples that are whole.
pub(crate) const WHOLE: usize = 57;

/// The samples, in a folder that the tests share while one of them needs it.
pub(crate) struct Samples(Folder);

impl Samples {
    pub(crate) fn shared() -> Arc<Self> {
        static SAMPLES: Mutex<Weak<Samples>> = Mutex::new(Weak::new());
        // A test that fails while it makes them must not fail the others.
        let mut shared = SAMPLES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(samples) = shared.upgrade() {
            return samples;
        }
        let samples = Arc::new(Self::make());
        *shared = Arc::downgrade(&samples);
        samples
    }

    fn make() -> Self {
        let (sandbox, folder) = (Sandbox::new(), Folder::new());
        sandbox.example("resize_images").folder(folder.path()).run();
        let samples = Self(folder);
        assert_eq!(fs::read_dir(samples.path()).unwrap().count(), WHOLE + 3);
        samples
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.file("target/resize_images/raw")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Copies all of them, with their times, into a new folder.
    pub(crate) fn copy_to(&self, folder: &Path) {
        fs::create_dir(folder).unwrap();
        for name in names(&self.path()) {
            let (from, to) = (self.file(&name), folder.join(&name));
            fs::copy(&from, &to).unwrap();
            set_modified(&to, &from);
        }
    }
}

/// Sets a file's time of change to that of another file.
pub(crate) fn set_modified(path: &Path, like: &Path) {
    let time = like.metadata().unwrap().modified().unwrap();
    File::options().write(true).open(path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
}

/// The names in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

/// Checks that the folder has this many pictures of this size and nothing else, and that all of them are whole.
#[track_caller]
pub(crate) fn assert_whole(folder: &Path, (width, height): (u16, u16), count: usize) {
    let names = names(folder);
    assert_eq!(names.len(), count, "{names:?}");
    for name in names {
        let path = folder.join(name);
        assert!(is_whole(&path, width, height), "{} is no picture of {width}x{height}", path.display());
    }
}

/// Returns `true` if the file is a PNG or a JPEG of this size, and is complete.
fn is_whole(path: &Path, width: u16, height: u16) -> bool {
    let bytes = fs::read(path).unwrap();
    match path.extension().map(OsStrExt::as_bytes) {
        Some(b"png") => {
            let size = [u32::from(width).to_be_bytes(), u32::from(height).to_be_bytes()].concat();
            let start = [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".as_slice(), &size].concat();
            bytes.starts_with(&start) && bytes.ends_with(b"\0\0\0\0IEND\xaeB`\x82")
        }
        Some(b"jpg") => {
            let size = [height.to_be_bytes(), width.to_be_bytes()].concat();
            let frame = [b"\xff\xc0\0\x11\x08".as_slice(), &size].concat();
            let has_frame = bytes.windows(frame.len()).any(|window| window == frame);
            bytes.starts_with(b"\xff\xd8") && has_frame && bytes.ends_with(b"\xff\xd9")
        }
        _ => false,
    }
}
