//! The spoken sample in every container, and sounds that are no speech.

use relay_node::backend::builtin::BuiltinTask::{Loudness, Probe, Vad, Waveform};
use relay_node::backend::builtin::{Limits, Source, run};
use serde_json::{Map, Value, json};

use crate::support::{SPEECH, audio, near, never, noise, number, path, plain, sine, wav, with};

/// What `fixtures/audio/make.sh` put together.
fn truth() -> Value {
    serde_json::from_slice(&audio("speech.truth.json")).unwrap()
}

/// Lead-in that an encoder adds and its file does not tell of, in seconds: LAME 1,105 frames at 24 kHz and the
/// decoder's 529, AAC 1,024 frames at 48 kHz.
fn untold_lead(name: &str) -> f64 {
    match name {
        "speech-no-info.mp3" => 0.046,
        "speech.aac" => 0.021,
        _ => 0.0,
    }
}

fn segments(result: &Value) -> Vec<(f64, f64)> {
    let segments = result["segments"].as_array().unwrap();
    segments.iter().map(|segment| (number(segment, "start"), number(segment, "end"))).collect()
}

#[test]
fn speech_is_found_within_80_ms_in_every_container() {
    let truth = segments(&truth());
    for (name, _) in SPEECH {
        let found = segments(&plain(Vad, audio(name)).unwrap().result);
        assert_eq!(found.len(), truth.len(), "{name}: {found:?}");
        for (found, truth) in found.iter().zip(&truth) {
            near(found.0, truth.0 + untold_lead(name), 0.08, &format!("start in {name}"));
            near(found.1, truth.1 + untold_lead(name), 0.08, &format!("end in {name}"));
        }
    }
}

#[test]
fn every_container_gives_the_same_duration_and_loudness() {
    let wanted = number(&truth(), "duration");
    let reference = number(&plain(Loudness, audio("speech.flac")).unwrap().result, "integrated_lufs");
    for (name, container) in SPEECH {
        let probe = plain(Probe, audio(name)).unwrap().result;
        assert_eq!(probe["container"], json!(container), "{name}");
        let slack = if untold_lead(name) > 0.0 { 0.1 } else { 0.001 };
        near(number(&probe, "duration_s"), wanted, slack, &format!("probed duration of {name}"));

        let result = plain(Loudness, audio(name)).unwrap().result;
        near(
            number(&result, "duration_s"),
            number(&probe, "duration_s"),
            0.001,
            &format!("decoded duration of {name}"),
        );
        // One channel counts half of two.
        let mono = if *name == "speech.wav" { -3.01 } else { 0.0 };
        near(number(&result, "integrated_lufs"), reference + mono, 0.5, &format!("loudness of {name}"));
        let waveform = plain(Waveform, audio(name)).unwrap().result;
        near(number(&waveform, "duration_s"), wanted, 0.1, &format!("duration in the waveform of {name}"));
    }
}

#[test]
fn tags_have_the_same_names_in_every_container() {
    for name in ["speech.flac", "speech.mp3", "speech.ogg", "speech.m4a"] {
        let result = plain(Probe, audio(name)).unwrap().result;
        assert_eq!(result["tags"]["title"], json!("Relay sample"), "{name}: {result}");
    }
}

#[test]
fn tone_noise_and_silence_are_no_speech() {
    let none: [(f64, f64); 0] = [];
    for name in ["tone.flac", "noise.wav"] {
        assert_eq!(segments(&plain(Vad, audio(name)).unwrap().result), none, "{name}");
    }
    for (name, file) in [
        ("a 1 kHz tone", wav(44_100, 2, 44_100 * 3, sine(44_100, 1_000.0, -12.0))),
        ("loud white noise", wav(48_000, 1, 48_000 * 3, noise(0.5))),
        ("quiet white noise", wav(16_000, 1, 16_000 * 3, noise(0.01))),
        ("silence", wav(8_000, 1, 8_000 * 3, |_| 0.0)),
    ] {
        let result = plain(Vad, file).unwrap().result;
        assert_eq!((segments(&result), number(&result, "duration_s")), (none.to_vec(), 3.0), "{name}");
    }
}

#[test]
fn a_long_min_silence_joins_and_a_long_min_speech_drops() {
    let joined = segments(&with(Vad, json!({ "min_silence_ms": 1_500 }), audio("speech.wav")).unwrap().result);
    let all = segments(&plain(Vad, audio("speech.wav")).unwrap().result);
    assert_eq!(joined, [(all[0].0, all[1].1)]);
    let long = segments(&with(Vad, json!({ "min_speech_ms": 1_700 }), audio("speech.wav")).unwrap().result);
    assert_eq!(long, [all[0]]);
}

#[test]
fn padding_widens_joins_and_stays_within_the_sound() {
    let all = segments(&plain(Vad, audio("speech.wav")).unwrap().result);
    let wider = segments(&with(Vad, json!({ "pad_ms": "100" }), audio("speech.wav")).unwrap().result);
    for (wider, plain) in wider.iter().zip(&all) {
        near(wider.0, plain.0 - 0.1, 0.0011, "start");
        near(wider.1, plain.1 + 0.1, 0.0011, "end");
    }
    let whole = with(Vad, json!({ "pad_ms": 10_000 }), audio("speech.wav")).unwrap().result;
    assert_eq!(segments(&whole), [(0.0, number(&whole, "duration_s"))]);
}

#[test]
fn a_file_on_disk_gives_what_the_bytes_give() {
    for task in [Probe, Loudness, Vad] {
        let file = std::fs::File::open(path("audio", "speech.m4a")).unwrap();
        let source = Source::from_file(file).unwrap();
        let on_disk = run(task, &Map::new(), source, &Limits::default(), &mut never).unwrap();
        assert_eq!(on_disk, plain(task, audio("speech.m4a")).unwrap());
    }
}

#[test]
fn speech_at_any_sample_rate_is_found() {
    // The sample once more, read at its own rate and stretched by repeating samples: 16 kHz to 32, 48 and 96 kHz.
    let mut reader = hound::WavReader::new(std::io::Cursor::new(audio("speech.wav"))).unwrap();
    let samples: Vec<f32> = reader.samples::<i16>().map(|sample| f32::from(sample.unwrap()) / 32_768.0).collect();
    let truth = segments(&truth());
    for times in [2, 3, 6] {
        let file = wav(16_000 * times, 1, samples.len() as u32 * times, |frame| samples[(frame / times) as usize]);
        let found = segments(&plain(Vad, file).unwrap().result);
        assert_eq!(found.len(), truth.len(), "{times}: {found:?}");
        for (found, truth) in found.iter().zip(&truth) {
            near(found.0, truth.0, 0.08, "start");
            near(found.1, truth.1, 0.08, "end");
        }
    }
}
