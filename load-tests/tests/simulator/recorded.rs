//! Reads a recorded answer.

use std::collections::BTreeMap;

use serde_json::Value;

/// What LocalAI answered.
pub(crate) struct Recorded {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Recorded {
    /// The answer in a file of `fixtures/localai`.
    pub(crate) fn read(name: &str) -> Self {
        let bytes = std::fs::read(crate::fixture(&format!("localai/{name}"))).expect("the recording is there");
        let text = String::from_utf8_lossy(&bytes).replace('\r', "");
        let answer = &text[text.find("HTTP/1.1 ").expect("an answer")..];
        let (head, rest) = answer.split_once("\n\n").expect("a head");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
        let headers =
            lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        let body = rest.split("\n# ").next().and_then(|rest| rest.split("\n## ").next());
        let body = body.unwrap_or_default().trim().to_owned();
        Self { status, headers: headers.collect(), body }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// The messages of a stream, without its end mark; fails if that is missing.
pub(crate) fn messages(stream: &str) -> Vec<Value> {
    let data: Vec<&str> = stream.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(data.last(), Some(&"[DONE]"), "a stream ends with its mark: {stream}");
    data[..data.len() - 1].iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Paths and types of all that a value holds; elements of lists count as one.
pub(crate) fn shape(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(value, "", &mut found);
    found.sort();
    found.dedup();
    found
}

fn walk(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, field)| walk(field, &format!("{path}/{name}"), found)),
        Value::Array(items) => {
            found.push(format!("{path}: list"));
            items.iter().for_each(|item| walk(item, &format!("{path}[]"), found));
        }
        Value::String(_) => found.push(format!("{path}: text")),
        Value::Number(_) => found.push(format!("{path}: number")),
        Value::Bool(_) => found.push(format!("{path}: flag")),
        Value::Null => found.push(format!("{path}: null")),
    }
}
