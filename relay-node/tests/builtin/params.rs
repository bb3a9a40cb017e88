//! Parameters, progress, cancellation and limits.

use relay_node::backend::builtin::BuiltinTask::{Loudness, Probe, Thumbnail, Vad, Waveform};
use relay_node::backend::builtin::{BuiltinTask, Cancelled, Limits, MediaError, Output, Source, run};
use relay_protocol::Task;
use serde_json::{Map, json};

use crate::support::{audio, code, image, never, noise, plain, wav, with};

#[test]
fn the_parameters_are_those_that_the_protocol_lists() {
    let builtin: Vec<_> = relay_protocol::task::TASKS.iter().copied().filter_map(BuiltinTask::of).collect();
    assert_eq!(builtin.len(), BuiltinTask::ALL.len());
    for task in [Task::Probe, Task::Loudness, Task::Vad, Task::Waveform, Task::Thumbnail] {
        let listed: Vec<_> = task.params().iter().map(|param| param.name).collect();
        assert_eq!(BuiltinTask::of(task).unwrap().params(), listed, "{task}");
    }
    assert_eq!(BuiltinTask::of(Task::Transcribe), None);
}

#[test]
fn an_unknown_parameter_is_named_with_those_that_exist() {
    for (task, known) in [
        (Probe, "it takes none"),
        (Loudness, "it takes none"),
        (Vad, "it has threshold, min_speech_ms, min_silence_ms, pad_ms"),
        (Waveform, "it has points, width, height"),
        (Thumbnail, "it has width, height, format"),
    ] {
        let error = with(task, json!({ "colour": 1 }), audio("speech.wav")).unwrap_err();
        assert_eq!(error.code(), "unknown_parameter");
        assert_eq!(error.to_string(), format!("{} has no parameter \"colour\"; {known}", task.name()));
    }
}

#[test]
fn values_of_the_wrong_kind_or_range_are_refused() {
    for (task, params) in [
        (Vad, json!({ "threshold": 0.0 })),
        (Vad, json!({ "threshold": 1 })),
        (Vad, json!({ "threshold": "NaN" })),
        (Vad, json!({ "threshold": true })),
        (Vad, json!({ "pad_ms": -1 })),
        (Vad, json!({ "pad_ms": 1.5 })),
        (Vad, json!({ "min_speech_ms": "60001" })),
        (Vad, json!({ "min_silence_ms": 1e300 })),
        (Waveform, json!({ "points": 0 })),
        (Waveform, json!({ "points": 10_001 })),
        (Waveform, json!({ "points": "many" })),
        (Waveform, json!({ "width": null })),
        (Waveform, json!({ "height": [200] })),
        (Thumbnail, json!({ "width": 4_097 })),
        (Thumbnail, json!({ "height": "" })),
        (Thumbnail, json!({ "format": "gif" })),
        (Thumbnail, json!({ "format": 1 })),
    ] {
        let file = if task == Thumbnail { image("picture.png") } else { audio("speech.wav") };
        let error = with(task, params.clone(), file).unwrap_err();
        assert_eq!(error.code(), "invalid_parameter", "{params}");
        let name = params.as_object().unwrap().keys().next().unwrap();
        assert!(error.to_string().starts_with(&format!("parameter {name} must be ")), "{error}");
    }
}

#[test]
fn text_that_reads_as_a_number_is_one() {
    let file = || wav(8_000, 1, 8_000, noise(0.1));
    let number = with(Waveform, json!({ "points": 50, "width": 40.0 }), file()).unwrap();
    let text = with(Waveform, json!({ "points": " 50 ", "width": "40" }), file()).unwrap();
    assert_eq!(number, text);
    assert_eq!(number.result["points"], json!(50));
}

#[test]
fn every_task_can_be_called_off_at_once() {
    for task in BuiltinTask::ALL {
        let file = if *task == Thumbnail { image("picture.png") } else { audio("speech.wav") };
        let source = Source::from_bytes(file.into());
        let outcome = run(*task, &Map::new(), source, &Limits::default(), &mut |_: f32| Err(Cancelled));
        assert_eq!(code(outcome), "cancelled", "{}", task.name());
    }
}

#[test]
fn a_long_decode_reports_rising_progress_and_stops_when_told() {
    // An hour: long enough that several reports fall into it on any machine.
    let file = bytes::Bytes::from(wav(8_000, 1, 8_000 * 3_600, noise(0.1)));
    let mut seen = Vec::new();
    let outcome = run(Vad, &Map::new(), Source::from_bytes(file), &Limits::default(), &mut |fraction: f32| {
        seen.push(fraction);
        if seen.len() < 4 { Ok(()) } else { Err(Cancelled) }
    });
    assert_eq!(code(outcome), "cancelled");
    assert_eq!((seen.len(), seen[0]), (4, 0.0));
    assert!(seen.windows(2).all(|pair| pair[0] <= pair[1]) && seen[1] > 0.0 && seen[3] < 1.0, "{seen:?}");
}

#[test]
fn the_last_report_is_one() {
    let mut last = None;
    let mut progress = |fraction: f32| {
        last = Some(fraction);
        Ok(())
    };
    let source = Source::from_bytes(audio("speech.wav").into());
    run(Loudness, &Map::new(), source, &Limits::default(), &mut progress).unwrap();
    assert_eq!(last, Some(1.0));
}

fn limited(task: BuiltinTask, limits: &Limits, file: Vec<u8>) -> Result<Output, MediaError> {
    run(task, &Map::new(), Source::from_bytes(file.into()), limits, &mut never)
}

#[test]
fn limits_are_named_when_they_are_hit() {
    let default = Limits::default();
    let cases = [
        (Limits { audio_duration_max_s: 5, ..default.clone() }, "media_too_long", "audio_duration_max_s"),
        (Limits { audio_channels_max: 1, ..default.clone() }, "media_too_large", "audio_channels_max = 1"),
        (Limits { audio_sample_rate_max_hz: 32_000, ..default.clone() }, "media_too_large", "audio_sample_rate_max_hz"),
        (Limits { audio_sample_rate_min_hz: 50_000, ..default }, "unsupported_media", "audio_sample_rate_min_hz"),
    ];
    for (limits, code, name) in cases {
        for task in crate::support::AUDIO_TASKS {
            let error = limited(*task, &limits, audio("speech.flac")).unwrap_err();
            assert_eq!(error.code(), code, "{name}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }
    let limits = Limits { vad_segments_max: 1, ..Limits::default() };
    let error = limited(Vad, &limits, audio("speech.wav")).unwrap_err();
    assert_eq!(error.code(), "media_too_large");
    assert!(error.to_string().contains("vad_segments_max = 1"), "{error}");
}

#[test]
fn duration_is_counted_where_the_header_does_not_say_it() {
    // The size that a writer puts down which cannot go back.
    let mut file = wav(8_000, 1, 80_000, noise(0.1));
    let data = file.windows(4).position(|word| word == b"data").unwrap();
    file[4..8].copy_from_slice(&[0xFF; 4]);
    file[data + 4..data + 8].copy_from_slice(&[0xFF; 4]);
    let limits = Limits { audio_duration_max_s: 9, ..Limits::default() };
    assert_eq!(code(limited(Waveform, &limits, file.clone())), "media_too_long");
    let result = plain(Waveform, file.clone()).unwrap().result;
    assert_eq!(result["duration_s"], json!(10.0));
    assert_eq!(plain(Probe, file).unwrap().result["duration_s"], json!(10.0));
}
