//! What makes two jobs the same work: the digest of what is to be done.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::job::{Input, Job};

/// First bytes of what is digested, so that another way of digesting gives other digests.
const FORMAT: &[u8] = b"job-body-1";

impl Job {
    /// SHA-256 of what is to be done: task, model, parameters, and the bytes of the input.
    ///
    /// The same for the same work, whoever submits it and how: bytes count the same inside the record and in the object
    /// store, whatever their path, name and media type; the order of parameters does not count; a parameter that is text
    /// counts as the number or truth value that it reads as. Priority, times, attempts and whatever tells of the way are
    /// not part of it.
    pub fn body_sha256(&self) -> [u8; 32] {
        let mut digest = Sha256::new_with_prefix(FORMAT);
        part(&mut digest, self.task.name().as_bytes());
        part(&mut digest, self.model.as_deref().unwrap_or_default().as_bytes());
        part(&mut digest, &(self.params.len() as u64).to_be_bytes());
        for (name, value) in sorted(&self.params) {
            part(&mut digest, name.as_bytes());
            match value {
                Value::String(text) => part(&mut digest, text.as_bytes()),
                other => part(&mut digest, canonical(other).as_bytes()),
            }
        }
        let (kind, bytes, content) = match &self.input {
            Input::Inline(media) => ("media", media.data.len() as u64, hex(&Sha256::digest(&media.data))),
            Input::Object(object) => ("media", object.bytes, object.sha256.clone()),
            Input::Text(text) => ("text", text.len() as u64, hex(&Sha256::digest(text))),
            Input::Url(url) => ("url", url.len() as u64, hex(&Sha256::digest(url))),
        };
        part(&mut digest, kind.as_bytes());
        part(&mut digest, &bytes.to_be_bytes());
        part(&mut digest, content.as_bytes());
        digest.finalize().into()
    }
}

/// Its length goes before each part, so that no two lists of parts are the same bytes.
fn part(digest: &mut Sha256, bytes: &[u8]) {
    digest.update((bytes.len() as u64).to_be_bytes());
    digest.update(bytes);
}

fn sorted(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut fields: Vec<_> = map.iter().collect();
    fields.sort_unstable_by_key(|(name, _)| *name);
    fields
}

/// JSON without spaces, fields by name.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let fields: Vec<_> = sorted(map)
                .into_iter()
                .map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), canonical(value)))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(values) => {
            format!("[{}]", values.iter().map(canonical).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
