//! Any sound as one channel at 16 kHz, the only kind the voice detector takes.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Indexing, Resampler};

use super::error::MediaError;

/// What comes out, in hertz.
pub(super) const RATE: u32 = 16_000;
/// Input frames per step of the resampler, roughly.
const CHUNK_FRAMES: usize = 1_024;

/// Turns interleaved samples into mono at [`RATE`], in time with the input: the filter's delay is taken out.
pub(super) struct ToMono16k {
    channels: usize,
    mono: Vec<f32>,
    resampler: Option<Converter>,
}

struct Converter {
    fft: Fft<f32>,
    output: Vec<f32>,
    ratio: f64,
    taken: u64,
    given: u64,
    /// Frames of the delay still to drop.
    delay: usize,
}

impl ToMono16k {
    pub(super) fn new(rate: u32, channels: usize) -> Result<Self, MediaError> {
        let resampler = if rate == RATE { None } else { Some(Converter::new(rate)?) };
        Ok(Self { channels, mono: Vec::new(), resampler })
    }

    /// Takes interleaved samples and gives to `sink` what is ready.
    pub(super) fn add(
        &mut self,
        samples: &[f32],
        sink: &mut dyn FnMut(&[f32]) -> Result<(), MediaError>,
    ) -> Result<(), MediaError> {
        let channels = self.channels as f32;
        // Clipped, since float files can hold any value and the detector takes none above full scale.
        let mix = |frame: &[f32]| frame.iter().map(|sample| sample.clamp(-1.0, 1.0)).sum::<f32>() / channels;
        self.mono.extend(samples.chunks_exact(self.channels).map(mix));
        match &mut self.resampler {
            Some(resampler) => resampler.convert(&mut self.mono, sink),
            None => {
                sink(&self.mono)?;
                self.mono.clear();
                Ok(())
            }
        }
    }

    /// Gives what is left.
    pub(super) fn finish(mut self, sink: &mut dyn FnMut(&[f32]) -> Result<(), MediaError>) -> Result<(), MediaError> {
        match &mut self.resampler {
            Some(resampler) => resampler.finish(&mut self.mono, sink),
            None => Ok(()),
        }
    }
}

impl Converter {
    fn new(rate: u32) -> Result<Self, MediaError> {
        let fft = Fft::new(rate as usize, RATE as usize, CHUNK_FRAMES, 1, FixedSync::Input);
        let fft = fft.map_err(|error| MediaError::corrupt(format!("{rate} Hz cannot be resampled: {error}")))?;
        let output = vec![0.0; fft.output_frames_max()];
        let (ratio, delay) = (f64::from(RATE) / f64::from(rate), fft.output_delay());
        Ok(Self { fft, output, ratio, taken: 0, given: 0, delay })
    }

    /// Converts all whole chunks of `mono`, and leaves the rest in it.
    fn convert(
        &mut self,
        mono: &mut Vec<f32>,
        sink: &mut dyn FnMut(&[f32]) -> Result<(), MediaError>,
    ) -> Result<(), MediaError> {
        let mut used = 0;
        while mono.len() - used >= self.fft.input_frames_next() {
            used += self.step(&mono[used..], None, u64::MAX, sink)?;
        }
        mono.drain(..used);
        self.taken += used as u64;
        Ok(())
    }

    /// Converts the rest, and pushes silence through until as much has come out as went in.
    fn finish(
        &mut self,
        mono: &mut Vec<f32>,
        sink: &mut dyn FnMut(&[f32]) -> Result<(), MediaError>,
    ) -> Result<(), MediaError> {
        let mut rest = mono.len();
        let due = ((self.taken + rest as u64) as f64 * self.ratio).round() as u64;
        mono.resize(self.fft.input_frames_next(), 0.0);
        while self.given < due {
            self.step(mono, Some(rest), due, sink)?;
            rest = 0;
        }
        Ok(())
    }

    /// One step; at most `due` frames are given in all. Returns the number of frames used.
    fn step(
        &mut self,
        input: &[f32],
        filled: Option<usize>,
        due: u64,
        sink: &mut dyn FnMut(&[f32]) -> Result<(), MediaError>,
    ) -> Result<usize, MediaError> {
        let broken = |reason: String| MediaError::corrupt(format!("resampling failed: {reason}"));
        let frames = self.output.len();
        let from = InterleavedSlice::new(input, 1, input.len()).map_err(|error| broken(error.to_string()))?;
        let mut to =
            InterleavedSlice::new_mut(&mut self.output, 1, frames).map_err(|error| broken(error.to_string()))?;
        let indexing = filled.map(|filled| Indexing::new().partial_len(filled));
        let (used, made) = self
            .fft
            .process_into_buffer(&from, &mut to, indexing.as_ref())
            .map_err(|error| broken(error.to_string()))?;
        let late = self.delay.min(made);
        self.delay -= late;
        let ready = &self.output[late..made];
        let ready = &ready[..ready.len().min(usize::try_from(due - self.given).unwrap_or(usize::MAX))];
        self.given += ready.len() as u64;
        sink(ready)?;
        Ok(used)
    }
}
