//! The pictures of a tree, and the hash of one picture. It does not depend on tasks and runs.

use std::fs;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, ImageResult, Limits};
use serde::Serialize;
use walkdir::WalkDir;

/// The key of a picture in the cache, as in `make`: if size and modification time are equal, the content is.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Picture {
    pub(crate) path: PathBuf,
    size: u64,
    modified: SystemTime,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum LookError {
    #[error("cannot read it: {0}")]
    Read(#[from] io::Error),
    #[error("it is broken: {0}")]
    Broken(#[from] ImageError),
}

/// Returns the files with the extension of PNG or JPEG, sorted. The paths are absolute, so the cache is independent
/// of the working directory.
pub(crate) fn pictures_below(dir: &Path) -> io::Result<Vec<Picture>> {
    let mut pictures = Vec::new();
    for entry in WalkDir::new(dir.canonicalize()?).sort_by_file_name() {
        let entry = entry?;
        if entry.file_type().is_file() && is_picture(entry.path()) {
            let metadata = entry.metadata()?;
            let (size, modified) = (metadata.len(), metadata.modified()?);
            pictures.push(Picture { path: entry.into_path(), size, modified });
        }
    }
    Ok(pictures)
}

fn is_picture(path: &Path) -> bool {
    let format = ImageFormat::from_path(path);
    matches!(format, Ok(ImageFormat::Png | ImageFormat::Jpeg))
}

/// Returns the difference hash: the picture is scaled to 9 times 8 grey points. Each bit states if a point is
/// followed by a darker one. Scaling or compressing the picture changes few bits or none.
pub(crate) fn look(picture: &Path) -> Result<u64, LookError> {
    let grey = decode(&fs::read(picture)?)?.into_luma16();
    let points = imageops::resize(&grey, 9, 8, FilterType::Triangle);
    let rows = points.rows().map(|row| row.map(|point| point.0).collect::<Vec<_>>());
    let bits = rows.flat_map(|row| row.windows(2).map(|pair| pair.first() > pair.last()).collect::<Vec<_>>());
    Ok(bits.fold(0, |hash, bit| hash << 1 | u64::from(bit)))
}

fn decode(bytes: &[u8]) -> ImageResult<DynamicImage> {
    let mut decoder = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?.into_decoder()?;
    // A header can claim more pixels than there is memory.
    Limits::default().reserve(decoder.total_bytes())?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}
