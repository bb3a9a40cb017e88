//! Peaks of a sound over time, as numbers and as a picture.

use image::{DynamicImage, ImageFormat};
use serde_json::{Value, json};

use super::error::MediaError;
use super::limits::Limits;
use super::params::Params;
use super::peaks::Peaks;
use super::picture::{draw, encode};
use super::progress::Throttle;
use super::source::Source;
use super::{BuiltinTask, Output, OutputMedia, open_audio, rounded};

/// Collects the peaks and draws them.
pub(super) fn run(
    params: &Params<'_>,
    source: Source,
    limits: &Limits,
    progress: &mut Throttle<'_>,
) -> Result<Output, MediaError> {
    let points = params.count("points", 800) as usize;
    let width = params.count("width", 800);
    let height = params.count("height", 200);

    let decoder = open_audio(BuiltinTask::Waveform, source)?.decoder(limits)?;
    let spec = decoder.spec.clone();
    let mut peaks = Peaks::new(points.max(width as usize));
    let frames = decoder.run(progress, |samples| {
        samples.chunks_exact(spec.channels).for_each(|frame| peaks.add(frame));
        Ok(())
    })?;
    let peaks = peaks.finish();

    let picture = draw(&peaks.points(width as usize), width, height);
    let bytes = encode(&DynamicImage::ImageRgb8(picture), ImageFormat::Png)?;
    let four = |sample: f32| rounded(f64::from(sample), 4);
    let points: Vec<Value> =
        peaks.points(points).iter().map(|peak| Value::from(vec![four(peak.low), four(peak.high)])).collect();
    let result = json!({
        "duration_s": rounded(frames as f64 / f64::from(spec.rate), 3),
        "channels": spec.channels,
        "sample_rate": spec.rate,
        "points": points.len(),
        "peaks": points,
        "picture": { "width": width, "height": height, "media_type": "image/png" },
    });
    let media = OutputMedia { media_type: "image/png", name: "waveform.png".to_owned(), bytes };
    Ok(Output { result, media: Some(media) })
}
