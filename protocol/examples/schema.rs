//! Writes the JSON schemas of the records in topics to `protocol/schema`, from the Rust types.
//!
//! ```text
//! cargo run -p relay-protocol --example schema
//! ```

use std::path::Path;

use relay_protocol::record::{AuditEntry, BackendDrain, ControlRecord, DedupEntry, ElectionRecord, MemberRegistration};
use relay_protocol::{Event, Job};
use schemars::{JsonSchema, schema_for};

/// File name and text of every schema, as the types make them now.
pub(crate) fn documents() -> Vec<(&'static str, String)> {
    vec![
        ("job.v1.json", text::<Job>("The value of a record in a lane's job topic, as JSON.")),
        ("event.v1.json", text::<Event>("An event of a job, the same in topics, SSE, sessions and the CLI.")),
        ("audit-entry.v1.json", text::<AuditEntry>("One entry of the audit trail; a record is a JSON list of them.")),
        ("control.v1.json", text::<ControlRecord>("The value of a record in a lane's control topic.")),
        ("dedup.v1.json", text::<DedupEntry>("The value of a record in a lane's dedup topic.")),
        (
            "backend-drain.v1.json",
            text::<BackendDrain>("The value of a drained backend's record in the cluster topic."),
        ),
        ("member.v1.json", text::<MemberRegistration>("The value of a member's record in the cluster topic.")),
        ("election.v1.json", text::<ElectionRecord>("The value of a record in the election topic.")),
    ]
}

fn text<T: JsonSchema>(comment: &str) -> String {
    let mut schema = schema_for!(T);
    schema.insert("$comment".to_owned(), comment.into());
    format!("{:#}\n", schema.as_value())
}

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    for (name, text) in documents() {
        std::fs::write(folder.join(name), text)?;
        println!("wrote {name}");
    }
    Ok(())
}
