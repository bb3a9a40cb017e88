//! Dead letters fit the log, whatever the record was and however often its job failed.

use bytes::Bytes;
use relay_log::port::{LogRecord, NewRecord, RECORD_BYTES_MAX, TopicPartition};
use relay_protocol::limits::ERROR_MESSAGE_BYTES_MAX;
use relay_protocol::record::{AttemptFailure, DedupEntry};
use relay_protocol::{ErrorCode, EventKind, JobError, topics};

use super::delivered::Delivered;
use super::outcome::{self, Ended, Outcome};
use crate::events::write::EventRecords;

/// What brokers and adapters take beside a value, key included.
const BESIDE_BYTES_MAX: usize = 198_000;

fn record(value: Vec<u8>, key: usize, header: usize) -> LogRecord {
    LogRecord {
        at: TopicPartition::new(topics::jobs(topics::DEFAULT_LANE), 0),
        offset: 3,
        key: Some(Bytes::from(vec![b'k'; key])),
        value: Some(Bytes::from(value)),
        headers: vec![("x-own".to_owned(), Bytes::from(vec![b'h'; header]))],
        timestamp_ms: 1_700_000_000_000,
    }
}

fn job_of(bytes: usize) -> Vec<u8> {
    let mut value = br#"{"task":"probe","input":{"text":"x"}"#.to_vec();
    value.resize(bytes.saturating_sub(1).max(value.len()), b' ');
    value.push(b'}');
    value
}

fn assert_fits(letter: &NewRecord) {
    assert!(letter.value.as_ref().map_or(0, Bytes::len) <= RECORD_BYTES_MAX);
    let headers: usize = letter.headers.iter().map(|(name, value)| name.len() + value.len() + 10).sum();
    let beside = headers + letter.key.as_ref().map_or(0, Bytes::len);
    assert!(beside <= BESIDE_BYTES_MAX, "{beside}");
}

fn header<'a>(letter: &'a NewRecord, name: &str) -> Option<&'a str> {
    let (_, value) = letter.headers.iter().find(|(found, _)| found == name)?;
    std::str::from_utf8(value).ok()
}

#[test]
fn records_that_cannot_be_written_again_are_refused_and_their_letters_fit() {
    let cases = [
        (job_of(RECORD_BYTES_MAX + 1), 10, 10, Some("relay-value-lost")),
        (job_of(100), 200_000, 10, Some("relay-key-lost")),
        (job_of(100), 10, 300_000, Some("relay-headers-lost")),
        (vec![b'z'; 1_250_000], 40_000, 150_000, Some("relay-value-lost")),
    ];
    for (value, key, headers, lost) in cases {
        let refused = Delivered::read("default", record(value, key, headers), 1).expect_err("it is refused");
        assert_eq!(refused.error.code, "too_large");
        let records = outcome::not_a_job(&refused, &EventRecords::new(8), 8, 1_700_000_000_000);
        records.iter().for_each(assert_fits);
        assert!(lost.is_none_or(|lost| header(&records[0], lost).is_some()), "{lost:?}: {:?}", records[0].headers);
    }
    assert!(
        Delivered::read("default", record(job_of(RECORD_BYTES_MAX), 1_000, 100_000), 1).is_ok(),
        "what fits is taken"
    );
}

#[test]
fn a_letter_with_very_many_long_errors_fits_and_keeps_the_newest() {
    let job = Delivered::read("default", record(job_of(RECORD_BYTES_MAX), 30_000, 100_000), 1).expect("a job");
    let error = || JobError::new(ErrorCode::BackendFailed, "e".repeat(ERROR_MESSAGE_BYTES_MAX));
    let failure = |attempt| AttemptFailure {
        attempt,
        backend: Some("b".repeat(200)),
        at: 5,
        error: error(),
        backend_ms: Some(7),
    };
    let ended = Ended {
        outcome: Outcome::DeadLettered(error()),
        attempt: 64,
        failures: (1..=64).map(failure).collect(),
        last_partial_seq: None,
        hops: Vec::new(),
        duplicate_of: None,
        told_here: false,
        at_ms: 9,
    };
    let entry: DedupEntry = outcome::dedup_entry(&job, &ended, std::time::Duration::from_secs(1));
    assert_eq!(entry.outcome, EventKind::DeadLettered);
    let records = outcome::records(&job, &ended, &EventRecords::new(8), 8, &entry);
    let letter = records.last().expect("a letter");
    assert_fits(letter);
    let told: Vec<AttemptFailure> = serde_json::from_str(header(letter, "relay-attempts").unwrap()).unwrap();
    assert!(told.len() > 10 && told.len() < 64, "{}", told.len());
    assert_eq!(told.last().map(|attempt| attempt.attempt), Some(64), "the newest are told");
}
