//! Every field of a durable call is used or refused by name.

use relay_protocol::{JobError, Task};
use serde_json::{Map, Value, json};

use super::{Content, Sound, Told, Wanted, Work, of_form, of_json};

fn fields(body: &Value) -> Map<String, Value> {
    body.as_object().unwrap().clone()
}

fn work(task: Task, body: Value) -> Result<Work, JobError> {
    of_json(task, fields(&body))
}

#[test]
fn a_chat_keeps_its_messages_and_parameters() {
    let messages = json!([{ "role": "user", "content": [{ "type": "text", "text": "hello" }] }]);
    let body = json!({
        "model": "m", "messages": messages, "temperature": 0.5, "stop": ["x"], "stream": false, "n": 1, "user": "ann", "tools": null,
    });
    let work = work(Task::Chat, body).unwrap();
    assert_eq!(work.model.as_deref(), Some("m"));
    assert_eq!(Value::Object(work.params), json!({ "temperature": 0.5, "stop": ["x"] }));
    assert_eq!(work.content, Content::Text(messages.to_string()));
}

#[test]
fn what_a_job_cannot_carry_is_refused_by_name() {
    let messages = json!([{ "role": "user", "content": "hello" }]);
    let cases = [
        (Task::Chat, json!({ "messages": messages, "stream": true }), "stream"),
        (Task::Chat, json!({ "messages": messages, "tools": [] }), "tools"),
        (Task::Chat, json!({ "messages": messages, "n": 2 }), "\"n\""),
        (Task::Chat, json!({ "messages": [] }), "messages"),
        (Task::Chat, json!({ "messages": "hello" }), "messages"),
        (Task::Embed, json!({ "input": [1, 2] }), "input"),
        (Task::Embed, json!({ "input": "a", "dimensions": 8 }), "dimensions"),
        (Task::Embed, json!({ "input": "a", "encoding_format": "hex" }), "encoding_format"),
        (Task::Image, json!({ "prompt": "a cat" }), "b64_json"),
        (Task::Image, json!({ "prompt": "a cat", "response_format": "url" }), "b64_json"),
        (Task::Image, json!({ "prompt": "a cat", "response_format": "b64_json", "n": 2 }), "\"n\""),
        (Task::Speak, json!({ "input": "" }), "input"),
        (Task::Speak, json!({ "input": "a", "instructions": "sing" }), "instructions"),
    ];
    for (task, body, named) in cases {
        let refused = work(task, body).unwrap_err();
        assert_eq!(refused.code, "invalid_field");
        assert!(refused.message.contains(named), "{named}: {}", refused.message);
    }
}

#[test]
fn a_text_that_reads_as_a_list_is_one_text() {
    let work = work(Task::Embed, json!({ "input": "[\"a\"]", "encoding_format": "base64" })).unwrap();
    assert_eq!(work.content, Content::Text(json!(["[\"a\"]"]).to_string()));
    assert_eq!(work.wanted, Wanted::Embeddings { in_base64: true });
}

#[test]
fn a_form_asks_for_words_or_a_brief_answer() {
    let form = |fields: &[(&str, &str)]| {
        of_form(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    };
    let Told { model, params, wanted } =
        form(&[("model", "m"), ("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment")])
            .unwrap();
    assert_eq!((model.as_deref(), Value::Object(params)), (Some("m"), json!({ "words": true })));
    assert_eq!(wanted, Wanted::Transcript { is_brief: false });
    assert_eq!(form(&[("response_format", "json")]).unwrap().wanted, Wanted::Transcript { is_brief: true });
    for wrong in [("response_format", "srt"), ("stream", "true"), ("include[]", "logprobs")] {
        assert_eq!(form(&[wrong]).unwrap_err().code, "invalid_field", "{wrong:?}");
    }
    assert!(form(&[("model", "m"), ("model", "n")]).is_err(), "which one?");
}

#[test]
fn samples_become_sound_that_has_the_same_ones() {
    let audio = vec![0.25, -0.1, 1.0, 0.333_333_34];
    let sound: Sound = serde_json::from_value(json!({ "model": "vad", "audio": audio })).unwrap();
    let Content::Wav(wav) = sound.work().unwrap().content else { panic!("no sound") };
    let mut reader = hound::WavReader::new(std::io::Cursor::new(&wav)).unwrap();
    assert_eq!(reader.spec().sample_rate, 16_000);
    let samples: Vec<f32> = reader.samples().collect::<Result<_, _>>().unwrap();
    assert_eq!(samples, audio.iter().map(|sample| *sample as f32).collect::<Vec<_>>());
    let empty: Sound = serde_json::from_value(json!({ "model": "vad", "audio": [] })).unwrap();
    assert!(empty.work().is_err());
}
