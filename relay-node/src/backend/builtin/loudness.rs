//! Loudness after EBU R128 / ITU-R BS.1770: integrated, range, peaks, and the loudest moment.

use ebur128::{Channel, EbuR128, Mode};
use serde_json::{Value, json};
use symphonia::core::audio::{Channels, Position};

use super::decode::Spec;
use super::error::MediaError;
use super::limits::Limits;
use super::progress::Throttle;
use super::source::Source;
use super::{BuiltinTask, Output, open_audio, rounded};

/// Windows of EBU Tech 3341, in tenths of a second.
const MOMENTARY_STEPS: u64 = 4;
const SHORT_TERM_STEPS: u64 = 30;

/// Measures the whole track.
pub(super) fn run(source: Source, limits: &Limits, progress: &mut Throttle<'_>) -> Result<Output, MediaError> {
    let decoder = open_audio(BuiltinTask::Loudness, source)?.decoder(limits)?;
    let spec = decoder.spec.clone();
    let mut meter = Meter::new(&spec)?;
    let frames = decoder.run(progress, |samples| meter.add(samples))?;
    let mut result = meter.result()?;
    result["duration_s"] = rounded(frames as f64 / f64::from(spec.rate), 3);
    result["channels"] = json!(spec.channels);
    result["sample_rate"] = json!(spec.rate);
    Ok(Output { result, media: None })
}

struct Meter {
    meter: EbuR128,
    /// Samples (all channels) in a tenth of a second, the step of both sliding windows.
    step: usize,
    /// Samples since the last step.
    partial: usize,
    steps: u64,
    momentary_max: f64,
    short_term_max: f64,
}

impl Meter {
    fn new(spec: &Spec) -> Result<Self, MediaError> {
        let mode = Mode::I | Mode::LRA | Mode::SAMPLE_PEAK | Mode::TRUE_PEAK;
        let mut meter = EbuR128::new(spec.channels as u32, spec.rate, mode).map_err(unmeasurable)?;
        if let Some(map) = channel_map(&spec.layout) {
            meter.set_channel_map(&map).map_err(unmeasurable)?;
        }
        Ok(Self {
            meter,
            step: (spec.rate as usize / 10).max(1) * spec.channels,
            partial: 0,
            steps: 0,
            momentary_max: f64::NEG_INFINITY,
            short_term_max: f64::NEG_INFINITY,
        })
    }

    fn add(&mut self, mut samples: &[f32]) -> Result<(), MediaError> {
        while !samples.is_empty() {
            let (now, later) = samples.split_at(samples.len().min(self.step - self.partial));
            self.meter.add_frames_f32(now).map_err(unmeasurable)?;
            self.partial += now.len();
            samples = later;
            if self.partial == self.step {
                self.partial = 0;
                self.slide()?;
            }
        }
        Ok(())
    }

    /// Looks at both windows, once they are full.
    fn slide(&mut self) -> Result<(), MediaError> {
        self.steps += 1;
        if self.steps >= MOMENTARY_STEPS {
            let momentary = self.meter.loudness_momentary().map_err(unmeasurable)?;
            self.momentary_max = self.momentary_max.max(momentary);
        }
        if self.steps >= SHORT_TERM_STEPS {
            let short_term = self.meter.loudness_shortterm().map_err(unmeasurable)?;
            self.short_term_max = self.short_term_max.max(short_term);
        }
        Ok(())
    }

    fn result(&self) -> Result<Value, MediaError> {
        let (mut sample_peak, mut true_peak) = (0f64, 0f64);
        for channel in 0..self.meter.channels() {
            sample_peak = sample_peak.max(self.meter.sample_peak(channel).map_err(unmeasurable)?);
            true_peak = true_peak.max(self.meter.true_peak(channel).map_err(unmeasurable)?);
        }
        let integrated = self.meter.loudness_global().map_err(unmeasurable)?;
        // Without a gated block there is no range to speak of; the meter says 0.
        let range = if integrated.is_finite() { self.meter.loudness_range().map_err(unmeasurable)? } else { f64::NAN };
        Ok(json!({
            "integrated_lufs": rounded(integrated, 2),
            "loudness_range_lu": rounded(range, 2),
            "momentary_max_lufs": rounded(self.momentary_max, 2),
            "short_term_max_lufs": rounded(self.short_term_max, 2),
            "true_peak_dbtp": rounded(decibels(true_peak), 2),
            "sample_peak_dbfs": rounded(decibels(sample_peak), 2),
        }))
    }
}

fn decibels(amplitude: f64) -> f64 {
    20.0 * amplitude.log10()
}

/// The meter refuses channel counts and rates outside its own, far wider, limits.
fn unmeasurable(error: ebur128::Error) -> MediaError {
    MediaError::corrupt(format!("the loudness meter cannot take this sound: {error}"))
}

/// Which weight each channel has; without known positions the meter's own guess by their number holds.
fn channel_map(layout: &Channels) -> Option<Vec<Channel>> {
    let Channels::Positioned(positions) = layout else { return None };
    Some(positions.iter().map(weight).collect())
}

fn weight(position: Position) -> Channel {
    match position {
        Position::FRONT_LEFT => Channel::Left,
        Position::FRONT_RIGHT => Channel::Right,
        Position::LFE1 | Position::LFE2 => Channel::Unused,
        Position::REAR_LEFT | Position::SIDE_LEFT => Channel::LeftSurround,
        Position::REAR_RIGHT | Position::SIDE_RIGHT => Channel::RightSurround,
        // All others count once, as the centre does.
        _ => Channel::Center,
    }
}
