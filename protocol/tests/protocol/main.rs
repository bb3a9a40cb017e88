//! Tests of the protocol: its bytes, its rules, its documents.

#[path = "../../examples/schema.rs"]
#[allow(dead_code, reason = "its main writes the files that are compared here")]
mod schema;
#[path = "../support/mod.rs"]
mod support;

mod documents;
mod error_codes;
mod frames;
mod golden;
mod hostile;
mod identity;
mod ids;
mod job_checks;
mod names;
mod records;
mod schemas;
mod times;
mod way_out;
