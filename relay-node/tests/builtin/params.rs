//! Parameters, progress, cancellation and limits.

use relay_node::backend::builtin::BuiltinTask::{Loudness, Probe, Thumbnail, Vad, Waveform};
use relay_node::backend::builtin::{BuiltinTask, Cancelled, Limits, MediaError, Output, Source, run};
use relay_protocol::Task;
use relay_protocol::param::{ParamKind, check_params};
use relay_protocol::task::TASKS;
use serde_json::{Map, Value, json};

use crate::support::{audio, code, image, never, noise, plain, wav, with};

#[test]
fn every_built_in_task_is_one_of_the_protocol() {
    let builtin: Vec<_> = TASKS.iter().copied().filter_map(BuiltinTask::of).collect();
    assert_eq!(builtin.len(), BuiltinTask::ALL.len());
    assert!(builtin.iter().all(|builtin| BuiltinTask::of(builtin.task()) == Some(*builtin)));
    assert_eq!(BuiltinTask::of(Task::Transcribe), None);
}

#[test]
fn parameters_are_checked_as_those_of_a_job() {
    for task in BuiltinTask::ALL {
        let file = || if *task == Thumbnail { image("picture.png") } else { audio("speech.wav") };
        let refused = |params: Value| {
            let expected = check_params(task.task(), params.as_object().unwrap()).unwrap_err();
            let error = with(*task, params, file()).unwrap_err();
            assert_eq!((error.code(), error.to_string()), (expected.code.as_str(), expected.message));
        };
        refused(json!({ "colour": 1 }));
        for param in task.task().params() {
            refused(json!({ param.name: [1] }));
            refused(json!({ param.name: -1 }));
        }
    }
}

/// Each bound is taken by the task as it is by the check.
#[test]
fn the_bounds_can_be_asked_for() {
    for task in BuiltinTask::ALL {
        for param in task.task().params() {
            let (least, most) = match param.kind {
                ParamKind::Number(min, max) => (json!(min), json!(max)),
                ParamKind::Count(min, max) => (json!(min), json!(max)),
                ParamKind::Choice(words) => (json!(words[0]), json!(words[words.len() - 1])),
                kind => panic!("{} of {} has the kind {kind:?}", param.name, task.name()),
            };
            for value in [least, most] {
                let file = if *task == Thumbnail { image("picture.png") } else { wav(8_000, 1, 8_000, noise(0.1)) };
                let params = json!({ param.name: value });
                with(*task, params.clone(), file).unwrap_or_else(|error| panic!("{}: {params}: {error}", task.name()));
            }
        }
    }
}

#[test]
fn text_that_reads_as_a_number_is_one() {
    let file = || wav(8_000, 1, 8_000, noise(0.1));
    let number = with(Waveform, json!({ "points": 50, "width": 40 }), file()).unwrap();
    let text = with(Waveform, json!({ "points": "50", "width": "40" }), file()).unwrap();
    assert_eq!(number, text);
    assert_eq!((&number.result["points"], &number.result["picture"]["width"]), (&json!(50), &json!(40)));
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
