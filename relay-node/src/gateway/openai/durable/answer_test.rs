//! A job's result looks like the answer of a backend.

use relay_protocol::JobId;
use serde_json::json;

use super::{Wanted, shaped};

#[test]
fn results_look_like_answers() {
    let id = JobId::new(7_000, 1, 2);
    let chat = json!({ "text": "hi", "model": "m", "finish_reason": "stop", "usage": { "total_tokens": 3 } });
    let answer = shaped(id, chat, Wanted::Chat);
    assert_eq!(answer["choices"][0]["message"], json!({ "role": "assistant", "content": "hi" }));
    assert_eq!((&answer["created"], &answer["usage"]["total_tokens"]), (&json!(7), &json!(3)));
    let vectors = || json!({ "embeddings": [[0.5, 1.0], [2.0]], "model": "m", "usage": null });
    let answer = shaped(id, vectors(), Wanted::Embeddings { in_base64: false });
    assert_eq!(answer["data"][1], json!({ "index": 1, "object": "embedding", "embedding": [2.0] }));
    let answer = shaped(id, vectors(), Wanted::Embeddings { in_base64: true });
    assert_eq!(answer["data"][0]["embedding"], "AAAAPwAAgD8=");
    let segments = json!([{ "start": 0.0, "end": 1.0 }]);
    let vad = json!({ "segments": segments, "duration_s": 2.0 });
    assert_eq!(shaped(id, vad, Wanted::Vad), json!({ "segments": segments }));
    let transcript = || json!({ "text": "a", "segments": [], "duration": 2.0 });
    assert_eq!(
        shaped(id, transcript(), Wanted::Transcript { is_brief: true }),
        json!({ "text": "a", "duration": 2.0 })
    );
    assert_eq!(shaped(id, transcript(), Wanted::Transcript { is_brief: false }), transcript());
}
