//! Results of signals whose truth is known by construction.

use relay_node::backend::builtin::BuiltinTask::{Loudness, Probe, Waveform};
use serde_json::{Value, json};

use crate::support::{code, near, noise, number, plain, sine, wav, with};

#[test]
fn a_stereo_sine_at_minus_23_dbfs_is_minus_23_lufs() {
    // EBU Tech 3341, case 1: 1 kHz, 20 s, both channels.
    let result = plain(Loudness, wav(48_000, 2, 48_000 * 20, sine(48_000, 1_000.0, -23.0))).unwrap().result;
    near(number(&result, "integrated_lufs"), -23.0, 0.1, "integrated");
    near(number(&result, "momentary_max_lufs"), -23.0, 0.1, "momentary");
    near(number(&result, "short_term_max_lufs"), -23.0, 0.1, "short-term");
    near(number(&result, "loudness_range_lu"), 0.0, 0.1, "range");
    near(number(&result, "sample_peak_dbfs"), -23.0, 0.1, "sample peak");
    near(number(&result, "true_peak_dbtp"), -23.0, 0.3, "true peak");
    assert_eq!(number(&result, "duration_s"), 20.0);
}

#[test]
fn the_gate_ignores_the_quiet_parts() {
    // EBU Tech 3341, case 3: -36 dBFS for 10 s, -23 dBFS for 60 s, -36 dBFS for 10 s is -23 LUFS.
    let (quiet, loud) = (sine(48_000, 1_000.0, -36.0), sine(48_000, 1_000.0, -23.0));
    let signal = |frame: u32| if (480_000..3_360_000).contains(&frame) { loud(frame) } else { quiet(frame) };
    let result = plain(Loudness, wav(48_000, 2, 3_840_000, signal)).unwrap().result;
    near(number(&result, "integrated_lufs"), -23.0, 0.1, "integrated");
}

#[test]
fn the_range_is_that_of_ebu_tech_3342() {
    // Case 1: 20 s at -20 dBFS, 20 s at -30 dBFS: 10 LU.
    let (loud, quiet) = (sine(48_000, 1_000.0, -20.0), sine(48_000, 1_000.0, -30.0));
    let signal = |frame: u32| if frame < 960_000 { loud(frame) } else { quiet(frame) };
    let result = plain(Loudness, wav(48_000, 2, 1_920_000, signal)).unwrap().result;
    near(number(&result, "loudness_range_lu"), 10.0, 1.0, "range");
}

#[test]
fn the_true_peak_is_found_between_the_samples() {
    // EBU Tech 3341, case 16: a quarter of the sample rate, 45 degrees off, never sampled at its crest.
    let signal = |frame: u32| 0.5 * (std::f32::consts::TAU * (frame as f32 / 4.0 + 0.125)).sin();
    let result = plain(Loudness, wav(48_000, 2, 48_000, signal)).unwrap().result;
    near(number(&result, "sample_peak_dbfs"), -9.03, 0.05, "sample peak");
    near(number(&result, "true_peak_dbtp"), -6.0, 0.4, "true peak");
}

#[test]
fn silence_has_no_loudness() {
    let result = plain(Loudness, wav(44_100, 2, 44_100 * 4, |_| 0.0)).unwrap().result;
    for key in [
        "integrated_lufs",
        "loudness_range_lu",
        "momentary_max_lufs",
        "short_term_max_lufs",
        "true_peak_dbtp",
        "sample_peak_dbfs",
    ] {
        assert_eq!(result[key], Value::Null, "{key}");
    }
    assert_eq!(number(&result, "duration_s"), 4.0);
}

#[test]
fn a_sound_shorter_than_a_window_has_no_value_for_it() {
    let result = plain(Loudness, wav(48_000, 1, 48_000, sine(48_000, 1_000.0, -20.0))).unwrap().result;
    assert!(result["momentary_max_lufs"].is_f64(), "{result}");
    assert_eq!(result["short_term_max_lufs"], Value::Null);
}

#[test]
fn durations_are_exact() {
    for (rate, frames) in [(8_000, 12_345), (44_100, 44_101), (48_000, 1), (96_000, 95_999)] {
        let file = wav(rate, 1, frames, noise(0.1));
        let wanted = (f64::from(frames) / f64::from(rate) * 1000.0).round() / 1000.0;
        assert_eq!(number(&plain(Probe, file.clone()).unwrap().result, "duration_s"), wanted, "{frames} at {rate}");
        assert_eq!(number(&plain(Loudness, file).unwrap().result, "duration_s"), wanted, "{frames} at {rate}");
    }
}

#[test]
fn the_probe_of_a_wav_tells_its_header() {
    let result = plain(Probe, wav(44_100, 2, 22_050, noise(0.1))).unwrap().result;
    let wanted = [
        ("kind", json!("audio")),
        ("container", json!("wav")),
        ("codec", json!("pcm_f32le")),
        ("duration_s", json!(0.5)),
        ("channels", json!(2)),
        ("sample_rate", json!(44_100)),
        ("bit_rate", json!(44_100 * 2 * 32)),
        ("truncated", json!(false)),
        ("tags", json!({})),
    ];
    for (key, value) in wanted {
        assert_eq!(result[key], value, "{key} in {result}");
    }
    assert_eq!(result["tracks"].as_array().map(Vec::len), Some(1));
}

#[test]
fn the_waveform_is_what_a_direct_look_at_the_samples_gives() {
    // 64 points over 64 * 512 frames: every border falls on a border of the collector.
    let (frames, points) = (64 * 512, 64);
    let signal = noise(0.8);
    let params = json!({ "points": points, "width": 64, "height": 101 });
    let result = with(Waveform, params, wav(16_000, 2, frames, &signal)).unwrap().result;
    let peaks = result["peaks"].as_array().unwrap();
    assert_eq!((peaks.len(), &result["points"]), (64, &json!(64)));
    for (point, peak) in (0u32..).zip(peaks) {
        let samples = || (point * 512..(point + 1) * 512).map(&signal).map(f64::from);
        near(peak[0].as_f64().unwrap(), samples().fold(f64::INFINITY, f64::min), 0.00005, "lowest");
        near(peak[1].as_f64().unwrap(), samples().fold(f64::NEG_INFINITY, f64::max), 0.00005, "highest");
    }
}

#[test]
fn the_picture_shows_the_peaks() {
    // Loud in the first half, silent in the second.
    let signal = |frame: u32| if frame < 8_000 { sine(16_000, 400.0, 0.0)(frame) } else { 0.0 };
    let params = json!({ "width": 100, "height": 51 });
    let media = with(Waveform, params, wav(16_000, 1, 16_000, signal)).unwrap().media.unwrap();
    assert_eq!((media.media_type, media.name.as_str()), ("image/png", "waveform.png"));
    let picture = image::load_from_memory(&media.bytes).unwrap().to_rgb8();
    assert_eq!(picture.dimensions(), (100, 51));
    let background = *picture.get_pixel(99, 0);
    assert_ne!(*picture.get_pixel(10, 0), background, "full scale reaches the top");
    assert_ne!(*picture.get_pixel(10, 50), background, "and the bottom");
    assert_eq!(*picture.get_pixel(90, 10), background, "silence stays at the axis");
    assert_ne!(*picture.get_pixel(90, 25), background, "the axis is drawn");
}

#[test]
fn a_sound_of_few_frames_has_one_point_per_frame() {
    let result = plain(Waveform, wav(8_000, 1, 3, |frame| frame as f32 / 4.0)).unwrap().result;
    assert_eq!(result["peaks"], json!([[0.0, 0.0], [0.25, 0.25], [0.5, 0.5]]));
}

#[test]
fn a_wav_without_sound_is_empty() {
    assert_eq!(code(plain(Waveform, wav(8_000, 1, 0, |_| 0.0))), "empty_media");
    assert_eq!(number(&plain(Probe, wav(8_000, 1, 0, |_| 0.0)).unwrap().result, "duration_s"), 0.0);
}

#[test]
fn samples_that_are_no_numbers_are_damage() {
    let file = wav(8_000, 1, 8_000, |frame| if frame == 4_000 { f32::NAN } else { 0.1 });
    assert_eq!(code(plain(Loudness, file)), "corrupt_media");
}
