//! Audio as the voice activity detectors of LocalAI take it: mono, 16 kHz, in memory.

use super::error::{Cancelled, MediaError};
use super::limits::Limits;
use super::progress::{Progress, Throttle};
use super::resample::ToMono16k;
use super::source::Source;
use super::{BuiltinTask, open_audio};

/// Samples per second of [`mono_16k`].
pub const RATE: u32 = super::resample::RATE;

struct Unwatched;

impl Progress for Unwatched {
    fn report(&mut self, _: f32) -> Result<(), Cancelled> {
        Ok(())
    }
}

/// Decodes, mixes down and resamples all of `source`; values from -1 to 1. Blocks. Four bytes for each sample are held.
///
/// # Errors
/// See [`MediaError`].
pub fn mono_16k(source: Source, limits: &Limits) -> Result<Vec<f32>, MediaError> {
    let decoder = open_audio(BuiltinTask::Vad, source)?.decoder(limits)?;
    let mut mono = ToMono16k::new(decoder.spec.rate, decoder.spec.channels)?;
    let mut samples = Vec::new();
    let mut unwatched = Unwatched;
    let mut progress = Throttle::start(&mut unwatched)?;
    let mut take = |sound: &[f32]| {
        samples.extend_from_slice(sound);
        Ok(())
    };
    decoder.run(&mut progress, |sound| mono.add(sound, &mut take))?;
    mono.finish(&mut take)?;
    Ok(samples)
}
