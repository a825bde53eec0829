//! Sample pictures to resize.

use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage};

/// Creates a folder of 60 pictures, 3 of them broken. The folder gets its name when it is complete.
pub(crate) fn make_samples(folder: &Path) -> anyhow::Result<()> {
    let unfinished = folder.with_extension(std::process::id().to_string());
    fs::create_dir_all(&unfinished)?;
    for number in 0..57 {
        let extension = if number % 2 == 0 { "png" } else { "jpg" };
        picture(number).save(unfinished.join(format!("picture-{number:02}.{extension}")))?;
    }
    let whole = fs::read(unfinished.join("picture-00.png"))?;
    let (half, _) = whole.split_at(whole.len() / 2);
    fs::write(unfinished.join("broken-half.png"), half)?;
    fs::write(unfinished.join("broken-empty.png"), "")?;
    fs::write(unfinished.join("broken-text.jpg"), "This is not a picture.\n")?;
    fs::rename(unfinished, folder)?;
    Ok(())
}

/// A disc before a coloured sky. No two pictures are equal.
fn picture(number: u32) -> RgbImage {
    let (width, height) = (160 + 4 * number, 240 - 2 * number);
    RgbImage::from_fn(width, height, |x, y| {
        let (from_left, from_top) = (x.abs_diff(width / 2), y.abs_diff(height / 2));
        let is_disc = from_left.pow(2) + from_top.pow(2) < (20 + number).pow(2);
        let [red, blue] = [x * 255 / width, y * 255 / height].map(|part| part as u8);
        if is_disc { Rgb([255, 240, 4 * number as u8]) } else { Rgb([red, 100, blue]) }
    })
}
