//! What docs/protocol.md says of kinds, fields, limits and bytes is what the code does.

use std::collections::BTreeMap;

use relay_protocol::Task;
use relay_protocol::message::KINDS;
use relay_protocol::param::ParamKind;
use relay_protocol::task::TASKS;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::support::{bytes, file, golden};

fn document() -> String {
    std::fs::read_to_string(file("../docs/protocol.md")).unwrap()
}

/// The sections of the messages: the rest of the heading, and the first column of the section's table.
fn sections(document: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let mut sections = BTreeMap::new();
    for section in document.split("\n### `").skip(1) {
        let section = section.split("\n## ").next().unwrap();
        let (name, rest) = section.split_once('`').unwrap();
        let fields = rest.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let heading = rest.lines().next().unwrap().to_owned();
        let fields = fields.map(str::to_owned).collect();
        assert!(sections.insert(name.to_owned(), (heading, fields)).is_none(), "{name} has two sections");
    }
    sections
}

#[test]
fn every_message_has_a_section_with_its_kind() {
    let sections = sections(&document());
    for (kind, version, name) in KINDS {
        let (heading, _) = sections.get(*name).unwrap_or_else(|| panic!("docs/protocol.md lacks {name}"));
        assert_eq!(heading, &format!(" · kind {kind:#06x}"), "{name}");
        assert!(name.ends_with(&format!("_v{version}")), "{name} is version {version}");
    }
    for name in sections.keys() {
        assert!(KINDS.iter().any(|(_, _, known)| known == name), "there is no message {name}");
    }
}

/// The keys of a golden file's `head`, in the order in which they stand there.
fn keys_of_head(text: &str) -> Vec<String> {
    struct Keys;
    impl<'de> Visitor<'de> for Keys {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut keys = Vec::new();
            while let Some((key, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                keys.push(key);
            }
            Ok(keys)
        }
    }
    let head = text.split_once("\"head\": ").unwrap().1;
    serde_json::Deserializer::from_str(head).deserialize_map(Keys).unwrap()
}

#[test]
fn every_field_is_documented_in_its_place() {
    let sections = sections(&document());
    let mut compared = 0;
    for entry in std::fs::read_dir(file("golden/v1")).unwrap() {
        let path = entry.unwrap().path();
        let message = path.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().to_owned();
        if let Some((_, fields)) = sections.get(&message) {
            assert_eq!(&keys_of_head(&std::fs::read_to_string(&path).unwrap()), fields, "{message}");
            compared += 1;
        }
    }
    assert!(compared >= KINDS.len());
}

/// The worked example is the golden frame.
#[test]
fn the_worked_example_is_the_golden_frame() {
    let document = document();
    let example = document.split_once("### A worked example").unwrap().1;
    let block = example.split("```").nth(1).unwrap().trim_start_matches("text\n");
    let is_byte = |word: &&str| word.len() == 2 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let hex: String = block.lines().flat_map(|line| line.split_whitespace().take_while(is_byte)).collect();
    assert_eq!(hex, hex::encode(bytes(&golden("hello_v1"), "frame")));
}

/// `pub const NAME: type = value;` of limits.rs against the rows of the table.
#[test]
fn every_limit_is_documented_with_its_value() {
    macro_rules! limits {
        ($($name:ident)*) => { [$((stringify!($name), relay_protocol::limits::$name as u64)),*] };
    }
    let limits = limits!(HEADER_BYTES HEAD_BYTES_MAX PAYLOAD_BYTES_MAX FRAME_BYTES_MAX INLINE_BYTES_MAX
        RESULT_BYTES_MAX UPLOAD_BYTES_MAX TRANSFER_CHUNK_BYTES UPLOAD_WINDOW_BYTES HELLO_TIMEOUT_MS PING_INTERVAL_MS
        IDLE_TIMEOUT_MS SESSION_JOBS_MAX PARAMS_BYTES_MAX NAME_BYTES_MAX IDEMPOTENCY_KEY_BYTES_MAX
        ERROR_MESSAGE_BYTES_MAX URL_BYTES_MAX OBJECT_PATH_BYTES_MAX MEDIA_TYPE_BYTES_MAX TRACEPARENT_BYTES_MAX
        ATTEMPTS_MAX ATTEMPT_NUMBER_MAX HOPS_MAX);
    let document = document();
    let table = document.split_once("\n## Limits").unwrap().1.split("\n## ").next().unwrap();
    let rows: Vec<(String, u64)> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(name, rest)| (name.to_uppercase(), rest.split(' ').next().unwrap().parse().unwrap()))
        .collect();
    let expected: Vec<(String, u64)> = limits.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    assert_eq!(rows, expected);
    let source = std::fs::read_to_string(file("src/limits.rs")).unwrap();
    let constants = source.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next());
    let constants: Vec<&str> =
        constants.filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_')).collect();
    assert_eq!(constants, limits.map(|(name, _)| name), "a limit is missing here and in the document");
}

/// Every file that the documents point to is there.
#[test]
fn links_lead_somewhere() {
    for name in ["protocol.md", "error-codes.md", "adr/0001-the-protocol.md"] {
        let path = file("../docs").join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split([')', '#']).next().unwrap()) {
            assert!(link.is_empty() || path.parent().unwrap().join(link).exists(), "{name} points to {link}");
        }
    }
}

/// A number as the documents write it: 10,000.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

#[test]
fn every_parameter_is_documented_with_its_bounds() {
    let documents =
        ["../docs/protocol.md", "../docs/builtin-tasks.md"].map(|path| std::fs::read_to_string(file(path)).unwrap());
    let row_of = |task: Task| {
        let names = |row: &&str| row.split('|').nth(1).is_some_and(|cell| cell.contains(&format!("`{task}`")));
        let rows: Vec<&str> = documents.iter().flat_map(|document| document.lines()).collect();
        let row = rows.iter().find(|row| names(row) && task.params().iter().all(|param| row.contains(param.name)));
        row.copied().unwrap_or_else(|| panic!("no table names task {task} and all its parameters"))
    };
    for task in TASKS {
        let row = row_of(*task);
        for param in task.params() {
            let about = row.split_once(&format!("`{}`", param.name)).unwrap().1;
            let others = task.params().iter().filter_map(|other| about.find(&format!("`{}`", other.name)));
            let about = &about[..others.min().unwrap_or(about.len())];
            let bounds = match param.kind {
                ParamKind::Number(min, max) => vec![format!("{min}–{max}")],
                ParamKind::Count(min, max) | ParamKind::Size(min, max) => {
                    vec![format!("{}–{}", grouped(min), grouped(max))]
                }
                ParamKind::Choice(words) => words.iter().map(|word| format!("`{word}`")).collect(),
                ParamKind::Text | ParamKind::Flag | ParamKind::Json => Vec::new(),
            };
            for bound in bounds {
                assert!(about.contains(&bound), "{} of {task} is not documented with {bound}: {about}", param.name);
            }
        }
    }
}
