//! The work on one picture. It does not depend on tasks and runs.

use std::fs;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use image::imageops::FilterType;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, ImageResult, Limits};

#[derive(Debug, thiserror::Error)]
pub(crate) enum ResizeError {
    #[error("cannot read it: {0}")]
    Read(io::Error),
    #[error("cannot resize it: {0}")]
    Broken(ImageError),
    #[error("cannot write it: {0}")]
    Write(io::Error),
}

impl ResizeError {
    /// A full disk or an unavailable server may recover. A broken picture stays broken.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Read(_) | Self::Write(_) => true,
            Self::Broken(_) => false,
        }
    }
}

/// Returns the files with the extension of PNG or JPEG, sorted.
pub(crate) fn pictures_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut pictures = entries.collect::<io::Result<Vec<_>>>()?;
    pictures.retain(|path| format_of(path).is_some());
    pictures.sort();
    Ok(pictures)
}

fn format_of(picture: &Path) -> Option<ImageFormat> {
    let format = ImageFormat::from_path(picture).ok()?;
    matches!(format, ImageFormat::Png | ImageFormat::Jpeg).then_some(format)
}

/// Reads a picture, crops it to the aspect ratio of `size`, scales it, and writes it under the same name into another
/// folder.
pub(crate) fn resize(picture: &Path, folder: &Path, size: (u32, u32)) -> Result<(), ResizeError> {
    // Read as a whole, so that an error of the disk is not mistaken for one of the picture.
    let bytes = fs::read(picture).map_err(ResizeError::Read)?;
    let format = format_of(picture).unwrap_or(ImageFormat::Png);
    let resized = resized(&bytes, format, size).map_err(ResizeError::Broken)?;
    let name = picture.file_name().unwrap_or_default();
    write_whole(&folder.join(name), &resized).map_err(ResizeError::Write)
}

fn resized(bytes: &[u8], format: ImageFormat, size: (u32, u32)) -> ImageResult<Vec<u8>> {
    let mut decoder = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?.into_decoder()?;
    // A header can claim more pixels than there is memory.
    Limits::default().reserve(decoder.total_bytes())?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    let mut image = cut(&image, size).resize_exact(size.0, size.1, FilterType::Triangle);
    if format == ImageFormat::Jpeg {
        // JPEG has no transparency.
        image = image.to_rgb8().into();
    }
    let mut resized = Cursor::new(Vec::new());
    image.write_to(&mut resized, format)?;
    Ok(resized.into_inner())
}

/// Returns the largest area with the aspect ratio of `width` and `height`, from the centre.
fn cut(image: &DynamicImage, (width, height): (u32, u32)) -> DynamicImage {
    let scaled = |side: u32, to: u32, from: u32| {
        let side = u64::from(side) * u64::from(to) / u64::from(from);
        u32::try_from(side).unwrap_or(u32::MAX).max(1)
    };
    let cut_width = image.width().min(scaled(image.height(), width, height));
    let cut_height = image.height().min(scaled(image.width(), height, width));
    let (left, top) = ((image.width() - cut_width) / 2, (image.height() - cut_height) / 2);
    image.crop_imm(left, top, cut_width, cut_height)
}

/// Writes to a temporary name first. So the real name never has a partial file, even if the program is killed.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    static WRITTEN: AtomicUsize = AtomicUsize::new(0);
    let temporary = format!(".{}-{}.tmp", std::process::id(), WRITTEN.fetch_add(1, Relaxed));
    let temporary = path.with_file_name(temporary);
    let written = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}
