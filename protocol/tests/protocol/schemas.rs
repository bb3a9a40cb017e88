//! The schema files say what the types say, and what the types write obeys them.

use jsonschema::Validator;
use relay_protocol::record::{AuditEntry, BackendDrain, ControlRecord, DedupEntry, ElectionRecord, MemberRegistration};
use relay_protocol::{Event, Job};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::schema::documents;
use crate::support::{file, golden, golden_files};

fn validator(name: &str) -> Validator {
    let text = std::fs::read_to_string(file("schema").join(name)).unwrap();
    let options = jsonschema::options().should_validate_formats(true);
    options.build(&serde_json::from_str(&text).unwrap()).unwrap()
}

fn assert_valid(validator: &Validator, file: &str, value: &Value) {
    let errors: Vec<String> =
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{file} breaks its schema: {errors:?}");
}

#[test]
fn the_files_are_what_the_types_make() {
    let known: Vec<&str> = documents().iter().map(|(name, _)| *name).collect();
    for (name, text) in documents() {
        let written = std::fs::read_to_string(file("schema").join(name)).unwrap_or_default();
        assert!(
            written == text,
            "protocol/schema/{name} is not what the types make; if the change is meant, write it anew with: \
             cargo run -p relay-protocol --example schema"
        );
    }
    for entry in std::fs::read_dir(file("schema")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(known.contains(&name.as_str()), "no type makes protocol/schema/{name}");
    }
}

/// Golden records of one kind obey the schema, are read by the type and come back the same.
fn check<T: Serialize + DeserializeOwned>(prefix: &str, schema: &str) {
    let validator = validator(schema);
    let mut checked = 0;
    for (file, vector) in golden_files().into_iter().filter(|(file, _)| file.starts_with(prefix)) {
        let list = if vector["json"].is_array() { vector["json"].clone() } else { json!([vector["json"]]) };
        for record in list.as_array().unwrap() {
            assert_valid(&validator, &file, record);
            let read: T = serde_json::from_value(record.clone()).unwrap_or_else(|error| panic!("{file}: {error}"));
            let written = serde_json::to_value(&read).unwrap();
            assert_eq!(&written, record, "{file}: the writer changed the record");
            checked += 1;
        }
    }
    assert!(checked > 0, "no golden file begins with {prefix}");
}

#[test]
fn golden_jobs_obey_the_schema() {
    let validator = validator("job.v1.json");
    for (file, vector) in golden_files().into_iter().filter(|(file, _)| file.starts_with("record.job.")) {
        assert_valid(&validator, &file, &vector["json"]);
        let job: Job = serde_json::from_value(vector["json"].clone()).unwrap();
        assert_eq!(serde_json::to_value(job).unwrap(), vector["json"], "{file}: the writer changed the record");
    }
}

#[test]
fn golden_events_obey_the_schema() {
    check::<Event>("record.event.", "event.v1.json");
}

#[test]
fn golden_control_records_obey_the_schema() {
    check::<ControlRecord>("record.control.", "control.v1.json");
}

#[test]
fn golden_dedup_entries_obey_the_schema() {
    check::<DedupEntry>("record.dedup.", "dedup.v1.json");
}

#[test]
fn golden_members_obey_the_schema_and_have_their_keys() {
    check::<MemberRegistration>("record.member", "member.v1.json");
    let vector = golden("record.member");
    let member: MemberRegistration = serde_json::from_value(vector["json"].clone()).unwrap();
    assert_eq!(vector["key"], member.key());
    assert!(MemberRegistration::is_key(member.key().as_bytes()) && !MemberRegistration::is_key(b"object-store"));
}

#[test]
fn golden_drains_obey_the_schema_and_have_their_keys() {
    check::<BackendDrain>("record.drain", "backend-drain.v1.json");
    let vector = golden("record.drain");
    let drain: BackendDrain = serde_json::from_value(vector["json"].clone()).unwrap();
    let key = BackendDrain::key_of(&drain.backend);
    assert_eq!(vector["key"], key);
    assert_eq!(BackendDrain::backend_of(key.as_bytes()), Some(drain.backend.as_str()));
    assert!(BackendDrain::backend_of(b"member/x").is_none() && !MemberRegistration::is_key(key.as_bytes()));
}

#[test]
fn golden_election_records_obey_the_schema() {
    check::<ElectionRecord>("record.election.", "election.v1.json");
}

#[test]
fn golden_audit_entries_obey_the_schema() {
    check::<AuditEntry>("record.audit", "audit-entry.v1.json");
}

/// A change to a valid job that makes it invalid for the schema, and for the reader.
#[test]
fn the_schema_refuses_what_the_reader_refuses() {
    let validator = validator("job.v1.json");
    let changes = [
        ("an unknown field", json!({ "colour": "red" })),
        ("an unknown task", json!({ "task": "sing" })),
        ("an unknown priority", json!({ "priority": "urgent" })),
        ("two inputs", json!({ "input": { "text": "a", "url": "http://b" } })),
        ("an unknown input", json!({ "input": { "file": "a" } })),
        ("a number for a name", json!({ "tenant": 3 })),
        ("an id that is none", json!({ "id": "17" })),
        ("a deadline that is no time", json!({ "deadline": "tomorrow" })),
        ("attempts over the limit", json!({ "attempts_max": 17 })),
        ("no attempts", json!({ "attempts_max": 0 })),
        ("a negative size", json!({ "input": { "object": { "path": "a", "bytes": -1, "sha256": "0" } } })),
    ];
    let valid = golden("record.job.object")["json"].clone();
    for (what, change) in changes {
        let mut job = valid.clone();
        job.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        assert!(!validator.is_valid(&job), "the schema takes {what}");
        let read = relay_protocol::record::decode_job(&job.to_string().into_bytes().into());
        assert!(read.is_err(), "the reader takes {what}");
    }
    let mut job = valid;
    job.as_object_mut().unwrap().remove("task");
    assert!(!validator.is_valid(&job), "the schema takes a job without a task");
}
