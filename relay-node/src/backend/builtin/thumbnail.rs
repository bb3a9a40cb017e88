//! Images: what they are, and small versions of them.

use std::io::{self, BufReader};

use image::{
    ColorType, DynamicImage, ImageBuffer, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits as ImageLimits,
    Rgb,
};
use serde_json::json;

use super::error::MediaError;
use super::limits::Limits;
use super::params::Params;
use super::picture::encode;
use super::progress::Throttle;
use super::sniff::{self, ImageKind, Kind};
use super::source::{ReadSeek, Source};
use super::{BuiltinTask, Output, OutputMedia, jpeg, wrong_kind};

/// Scales the image down to fit, never up.
pub(super) fn run(
    params: &Params<'_>,
    mut source: Source,
    limits: &Limits,
    progress: &mut Throttle<'_>,
) -> Result<Output, MediaError> {
    let (width, height) = (params.count("width", 256), params.count("height", 256));
    let format = if params.word("format", "png") == "png" { ImageKind::Png } else { ImageKind::Jpeg };

    let kind = match sniff::kind_of(&mut source, sniff::IMAGE)? {
        Kind::Image(kind) => kind,
        other => return Err(wrong_kind(BuiltinTask::Thumbnail, other, sniff::IMAGE)),
    };
    if kind == ImageKind::Jpeg {
        jpeg::check_end(&mut source)?;
    }
    let (picture, size) = decode(kind, source, limits)?;
    progress.at(0.6)?;
    let small = match (size.0 <= width && size.1 <= height, format) {
        (true, _) => picture,
        (false, _) => picture.thumbnail(width, height),
    };
    finish(small, format, kind, size)
}

fn finish(small: DynamicImage, format: ImageKind, from: ImageKind, size: (u32, u32)) -> Result<Output, MediaError> {
    let (encoded, media_type, name) = match format {
        ImageKind::Jpeg => (encode(&on_white(&small), ImageFormat::Jpeg)?, "image/jpeg", "thumbnail.jpg"),
        _ if small.color().has_alpha() => {
            (encode(&DynamicImage::ImageRgba8(small.to_rgba8()), ImageFormat::Png)?, "image/png", "thumbnail.png")
        }
        _ => (encode(&DynamicImage::ImageRgb8(small.to_rgb8()), ImageFormat::Png)?, "image/png", "thumbnail.png"),
    };
    let result = json!({
        "width": small.width(),
        "height": small.height(),
        "media_type": media_type,
        "source": { "format": from.name(), "width": size.0, "height": size.1 },
    });
    Ok(Output { result, media: Some(OutputMedia { media_type, name: name.to_owned(), bytes: encoded }) })
}

/// JPEG has no transparency: what is transparent becomes white.
fn on_white(picture: &DynamicImage) -> DynamicImage {
    if !picture.color().has_alpha() {
        return DynamicImage::ImageRgb8(picture.to_rgb8());
    }
    let rgba = picture.to_rgba8();
    let flat = ImageBuffer::from_fn(rgba.width(), rgba.height(), |x, y| {
        let [red, green, blue, alpha] = rgba.get_pixel(x, y).0.map(u32::from);
        Rgb([red, green, blue].map(|colour| ((colour * alpha + 255 * (255 - alpha) + 127) / 255) as u8))
    });
    DynamicImage::ImageRgb8(flat)
}

/// What an image's header says.
pub(super) struct Header {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) color: ColorType,
}

/// Reads the header only.
pub(super) fn header(kind: ImageKind, source: Source, limits: &Limits) -> Result<Header, MediaError> {
    let decoder = open(kind, source, limits)?;
    let (width, height) = decoder.dimensions();
    Ok(Header { width, height, color: decoder.color_type() })
}

fn open(kind: ImageKind, mut source: Source, limits: &Limits) -> Result<impl ImageDecoder, MediaError> {
    source.file.rewind().map_err(MediaError::Unreadable)?;
    let format = match kind {
        ImageKind::Png => ImageFormat::Png,
        ImageKind::Jpeg => ImageFormat::Jpeg,
        ImageKind::WebP => ImageFormat::WebP,
    };
    let file: BufReader<Box<dyn ReadSeek>> = BufReader::new(source.file);
    let mut reader = ImageReader::with_format(file, format);
    let mut bounds = ImageLimits::default();
    bounds.max_alloc = Some(limits.image_memory_max_bytes);
    reader.limits(bounds);
    reader.into_decoder().map_err(|error| why(error, limits))
}

/// Decodes under the limits, upright: the camera's orientation is applied.
fn decode(kind: ImageKind, source: Source, limits: &Limits) -> Result<(DynamicImage, (u32, u32)), MediaError> {
    let mut decoder = open(kind, source, limits)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > limits.image_pixels_max {
        return Err(MediaError::TooLarge {
            what: format!("an image of {width} × {height} = {pixels} pixels"),
            limit: "image_pixels_max",
            max: limits.image_pixels_max,
            advice: "scale it down first",
        });
    }
    if decoder.total_bytes() > limits.image_memory_max_bytes {
        return Err(out_of_memory(limits));
    }
    let orientation = decoder.orientation().map_err(|error| why(error, limits))?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| why(error, limits))?;
    picture.apply_orientation(orientation);
    let size = (picture.width(), picture.height());
    Ok((picture, size))
}

fn out_of_memory(limits: &Limits) -> MediaError {
    MediaError::TooLarge {
        what: "the memory to decode this image".to_owned(),
        limit: "image_memory_max_bytes",
        max: limits.image_memory_max_bytes,
        advice: "scale it down first, or save it with 8 bits per colour",
    }
}

fn why(error: ImageError, limits: &Limits) -> MediaError {
    match error {
        ImageError::Limits(_) => out_of_memory(limits),
        ImageError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            MediaError::truncated("the image ends where more must come")
        }
        ImageError::IoError(error) => MediaError::Unreadable(error),
        ImageError::Unsupported(error) => MediaError::Unsupported { found: error.to_string(), accepted: sniff::IMAGE },
        error => MediaError::corrupt(error.to_string()),
    }
}
