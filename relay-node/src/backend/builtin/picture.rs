//! Peaks as a PNG, and images as files.

use std::io::Cursor;

use bytes::Bytes;
use image::{DynamicImage, ImageError, ImageFormat, Rgb, RgbImage};

use super::error::MediaError;
use super::peaks::Peak;

const BACKGROUND: Rgb<u8> = Rgb([0xFF, 0xFF, 0xFF]);
const AXIS: Rgb<u8> = Rgb([0xD0, 0xD7, 0xDE]);
const SOUND: Rgb<u8> = Rgb([0x1F, 0x6F, 0xEB]);

/// Draws one upright line per column, from its lowest to its highest sample; full scale is the whole height.
pub(super) fn draw(columns: &[Peak], width: u32, height: u32) -> RgbImage {
    let mut picture = RgbImage::from_pixel(width, height, BACKGROUND);
    let last = height - 1;
    let row = |sample: f32| ((1.0 - sample.clamp(-1.0, 1.0)) / 2.0 * last as f32).round() as u32;
    for column in 0..width {
        picture.put_pixel(column, row(0.0), AXIS);
        let Some(peak) = columns.get(column as usize * columns.len() / width as usize) else { continue };
        for line in row(peak.high)..=row(peak.low) {
            picture.put_pixel(column, line, SOUND);
        }
    }
    picture
}

/// Writes `picture` as a file of `format`.
pub(super) fn encode(picture: &DynamicImage, format: ImageFormat) -> Result<Bytes, MediaError> {
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, format).map_err(|error| match error {
        ImageError::IoError(error) => MediaError::Unreadable(error),
        error => MediaError::corrupt(format!("the picture cannot be written: {error}")),
    })?;
    Ok(Bytes::from(file.into_inner()))
}
