//! Writes the golden vectors that are missing in `protocol/golden/v1`; never changes one that is there.
//!
//! ```text
//! cargo run -p relay-protocol --example golden
//! ```
//! A vector freezes bytes that others rely on. Where one does not match the code any more, the code is wrong: a changed
//! struct is a new version with new vectors. Until the first release a deliberate change of version 1 deletes the file,
//! runs this, and leaves a line in `docs/adr/0001-the-protocol.md`.

mod jobs;
mod records;
mod sessions;
mod streams;

use std::error::Error;
use std::path::Path;

use relay_protocol::{Message, frame};
use serde::Serialize;

/// A file to write: its name without `.json`, and its text.
type Vector = (String, String);

/// How a message's vector is written.
#[derive(Serialize)]
struct MessageVector<'a, M> {
    name: &'a str,
    kind: u16,
    version: u8,
    head: &'a M,
    payload: String,
    frame: String,
}

/// The vector of one message; `case` is empty, or tells several vectors of a kind apart.
fn message<M: Message>(case: &str, head: &M, payload: &[u8]) -> Result<Vector, Box<dyn Error>> {
    let frame = hex::encode(frame::encode(head, payload)?);
    let vector =
        MessageVector { name: M::NAME, kind: M::KIND, version: M::VERSION, head, payload: hex::encode(payload), frame };
    let dot = if case.is_empty() { "" } else { "." };
    Ok((format!("{}{dot}{case}", M::NAME), pretty(&vector)?))
}

fn pretty<T: Serialize>(value: &T) -> Result<String, Box<dyn Error>> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/v1");
    let mut vectors = sessions::vectors()?;
    vectors.extend(jobs::vectors()?);
    vectors.extend(streams::vectors()?);
    vectors.extend(records::vectors()?);
    let (mut written, mut kept) = (0, 0);
    for (name, text) in vectors {
        let path = folder.join(format!("{name}.json"));
        if path.exists() {
            kept += 1;
            continue;
        }
        std::fs::write(&path, text)?;
        written += 1;
        println!("wrote {name}.json");
    }
    println!("{written} written, {kept} kept as they are");
    Ok(())
}
