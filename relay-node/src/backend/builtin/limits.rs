//! Bounds on what a built-in task takes on.

use serde::Deserialize;

/// Bounds on what a built-in task takes on. Beyond one of them the task ends with an error that names it.
///
/// Decoded audio is never held as a whole, so memory does not grow with duration, only with `audio_channels_max` and
/// `audio_sample_rate_max_hz` (a few seconds of sound for loudness).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Longest audio, in seconds; counted while decoding, whatever the header says. Default 14,400 (4 h).
    pub audio_duration_max_s: u32,
    /// Most channels of an audio track. Default 8.
    pub audio_channels_max: u32,
    /// Lowest sample rate, in hertz. Default 4,000.
    pub audio_sample_rate_min_hz: u32,
    /// Highest sample rate, in hertz. Default 192,000.
    pub audio_sample_rate_max_hz: u32,
    /// Most speech segments in one result. Default 20,000.
    pub vad_segments_max: u32,
    /// Most pixels of an image, width times height, before anything is decoded. Default 50,000,000.
    pub image_pixels_max: u64,
    /// Most memory for decoding an image, in bytes. Default 268,435,456 (256 MiB).
    pub image_memory_max_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            audio_duration_max_s: 14_400,
            audio_channels_max: 8,
            audio_sample_rate_min_hz: 4_000,
            audio_sample_rate_max_hz: 192_000,
            vad_segments_max: 20_000,
            image_pixels_max: 50_000_000,
            image_memory_max_bytes: 256 * 1024 * 1024,
        }
    }
}
