//! The input of the jobs that the checks submit.

use std::io::Cursor;

use hound::{SampleFormat, WavSpec, WavWriter};

/// Samples a second.
const RATE: u32 = 16_000;

/// Half a second of a quiet tone of 440 Hz, as WAV.
///
/// # Errors
/// It cannot be encoded.
pub fn tone() -> anyhow::Result<Vec<u8>> {
    let spec = WavSpec { channels: 1, sample_rate: RATE, bits_per_sample: 16, sample_format: SampleFormat::Int };
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = WavWriter::new(&mut bytes, spec)?;
    for sample in 0..RATE / 2 {
        let phase = f64::from(sample) / f64::from(RATE) * 440.0 * std::f64::consts::TAU;
        writer.write_sample((phase.sin() * 4_000.0) as i16)?;
    }
    writer.finalize()?;
    Ok(bytes.into_inner())
}
