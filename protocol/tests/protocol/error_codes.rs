//! Error codes: unique, well formed, with a fitting HTTP status, and all in `docs/error-codes.md`.

use std::collections::BTreeSet;

use relay_protocol::{ErrorCode, JobError};

use crate::support::file;

#[test]
fn codes_are_unique_and_snake_case() {
    let mut seen = BTreeSet::new();
    for code in ErrorCode::ALL {
        let name = code.as_str();
        assert!(seen.insert(name), "{name} is there twice");
        let words = name.split('_');
        let word = |word: &str| {
            word.starts_with(|c: char| c.is_ascii_lowercase())
                && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        assert!(words.into_iter().all(word), "{name} is not snake_case");
        assert_eq!(code.to_string(), name);
    }
}

/// Generic HTTP clients retry 408, 429 and 503 by the status alone, and give up on most of 4xx.
#[test]
fn the_status_fits() {
    for code in ErrorCode::ALL {
        let status = code.http_status();
        assert!((400..600).contains(&status), "{code} has status {status}");
        if matches!(status, 408 | 429 | 503) {
            assert!(code.retryable(), "{code} has status {status} and is not retryable");
        }
        if code.retryable() {
            assert!(matches!(status, 408 | 422 | 429 | 500..=599), "{code} is retryable with status {status}");
        }
    }
}

#[test]
fn an_error_has_its_code_s_nature_and_a_bounded_message() {
    for code in ErrorCode::ALL {
        let error = JobError::new(*code, "ü".repeat(5_000));
        assert_eq!((error.known_code(), error.retryable), (Some(*code), code.retryable()));
        assert_eq!(error.message.len(), relay_protocol::limits::ERROR_MESSAGE_BYTES_MAX);
        assert!(error.clone().with_retryable(true).retryable && !error.with_retryable(false).retryable);
    }
}

/// The rows of the document's table: code, status, retryable, meaning, what to do.
fn rows() -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(file("../docs/error-codes.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

#[test]
fn the_document_lists_exactly_these_codes() {
    let rows = rows();
    for row in &rows {
        assert_eq!(row.len(), 5, "{row:?}");
        assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?} has an empty cell");
        assert!(row[3].len() > 10 && row[4].len() > 10, "{row:?} says too little");
    }
    let documented: Vec<(String, String, String)> =
        rows.iter().map(|row| (row[0].clone(), row[1].clone(), row[2].clone())).collect();
    let expected: Vec<(String, String, String)> = ErrorCode::ALL
        .iter()
        .map(|code| {
            let retryable = if code.retryable() { "yes" } else { "no" };
            (format!("`{code}`"), code.http_status().to_string(), retryable.to_owned())
        })
        .collect();
    assert_eq!(documented, expected, "docs/error-codes.md must list ErrorCode::ALL in its order");
}
