//! Each rule is found broken by a record that breaks it, and by no other.

use bytes::Bytes;
use relay_log::port::{LogRecord, TopicPartition};
use relay_protocol::job::JobHeadV1;
use relay_protocol::record::{HEADER_GATEWAY, HEADER_MOVED, HEADER_TRACEPARENT, encode_job};
use relay_protocol::{Job, JobId, Message as _, partition};

use super::{ID_AHEAD_MS_MAX, Lane, Rule};

const PARTITIONS: u32 = 8;
const NOW_MS: u64 = 1_800_000_000_000;

fn id(random: u64) -> JobId {
    JobId::new(NOW_MS, 3, random)
}

fn body(id: JobId, text: &str) -> String {
    format!(r#"{{"id":"{id}","task":"chat","input":{{"text":"{text}"}}}}"#)
}

/// A record with this key and value, in the key's partition, at an offset of its own.
fn record(offset: u64, key: &str, value: impl Into<Bytes>) -> LogRecord {
    LogRecord {
        at: TopicPartition::new("media.jobs.default", partition::of_key(key.as_bytes(), PARTITIONS)),
        offset,
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Some(value.into()),
        headers: Vec::new(),
        timestamp_ms: NOW_MS,
    }
}

fn good(offset: u64) -> LogRecord {
    record(offset, &format!("default/{}", id(offset)), body(id(offset), "hello"))
}

fn broken(record: &LogRecord) -> Vec<Rule> {
    let judgement = Lane::new(PARTITIONS).judge(record).expect("it is judged");
    judgement.breaches.into_iter().map(|breach| breach.rule).collect()
}

#[test]
fn a_good_record_breaks_nothing_in_json_and_in_a_frame() {
    let mut json = good(1);
    assert_eq!(broken(&json), []);
    json.headers.push((HEADER_TRACEPARENT.to_owned(), format!("00-{}-{}-01", "a".repeat(32), "b".repeat(16)).into()));
    json.headers.push(("their-own".to_owned(), Bytes::from_static(b"x")));
    assert_eq!(broken(&json), []);
    let job: Job = serde_json::from_str(&body(id(1), "hello")).unwrap();
    let mut framed = good(1);
    framed.value = Some(encode_job(&job).unwrap());
    assert_eq!(broken(&framed), []);
}

#[test]
fn each_rule_is_found_broken() {
    let with = |change: fn(&mut LogRecord)| {
        let mut record = good(1);
        change(&mut record);
        broken(&record)
    };
    assert_eq!(with(|r| r.value = None), [Rule::Value]);
    assert_eq!(with(|r| r.value = Some(vec![b' '; 1_100_001].into())), [Rule::Value]);
    assert_eq!(with(|r| r.value = Some("hello".into())), [Rule::Body]);
    assert_eq!(with(|r| r.value = Some("[]".into())), [Rule::Body]);
    assert_eq!(with(|r| r.value = Some("RM too short".into())), [Rule::Body]);
    assert_eq!(with(|r| r.value = Some(r#"{"task":"sing","input":{"text":"la"}}"#.into())), [Rule::Schema]);
    assert_eq!(with(|r| r.value = Some(r#"{"version":2,"task":"chat","input":{"text":"la"}}"#.into())), [Rule::Schema]);
    assert_eq!(with(|r| r.value = Some(r#"{"task":"chat","input":{"text":""}}"#.into())), [Rule::Job]);
    assert_eq!(with(|r| r.value = Some(r#"{"task":"chat","input":{"text":"la"}}"#.into())), [Rule::Identity]);
    assert_eq!(with(|r| r.timestamp_ms = NOW_MS - ID_AHEAD_MS_MAX - 1), [Rule::IdTime]);
    assert_eq!(with(|r| r.timestamp_ms = NOW_MS - ID_AHEAD_MS_MAX), []);
    assert_eq!(with(|r| r.key = None), [Rule::Key]);
    assert_eq!(with(|r| r.key = Some("default".into())), [Rule::Key]);
    assert_eq!(with(|r| r.at.partition = (r.at.partition + 1) % PARTITIONS), [Rule::Partition]);
    assert_eq!(with(|r| r.headers.push((HEADER_GATEWAY.to_owned(), "me".into()))), [Rule::Headers]);
    assert_eq!(with(|r| r.headers.push((HEADER_TRACEPARENT.to_owned(), "00-1-2-3".into()))), [Rule::Trace]);
}

#[test]
fn a_frame_of_another_version_is_no_job() {
    let job: Job = serde_json::from_str(&body(id(1), "hello")).unwrap();
    let mut bytes = encode_job(&job).unwrap().to_vec();
    assert_eq!(u16::from_le_bytes([bytes[2], bytes[3]]), JobHeadV1::KIND);
    bytes[4] = JobHeadV1::VERSION + 1;
    let mut record = good(1);
    record.value = Some(bytes.into());
    let judgement = Lane::new(PARTITIONS).judge(&record).unwrap();
    assert_eq!(judgement.breaches[0].rule, Rule::Schema);
    assert!(judgement.breaches[0].got.contains("version 2"), "{judgement:?}");
    assert_eq!(judgement.job_id, None);
}

#[test]
fn an_idempotency_key_takes_the_place_of_the_id_in_the_key() {
    let value =
        format!(r#"{{"id":"{}","tenant":"t","task":"chat","input":{{"text":"a"}},"idempotency_key":"k/1"}}"#, id(1));
    assert_eq!(broken(&record(1, "t/k/1", value.clone())), []);
    let wrong = record(1, &format!("t/{}", id(1)), value);
    assert!(broken(&wrong).contains(&Rule::Key));
}

#[test]
fn one_id_is_one_job_and_one_key_one_work() {
    let mut lane = Lane::new(PARTITIONS);
    let mut judged = |record: &LogRecord| -> Vec<Rule> {
        lane.judge(record).unwrap().breaches.into_iter().map(|breach| breach.rule).collect()
    };
    let key = format!("default/{}", id(1));
    assert_eq!(judged(&good(1)), []);
    assert_eq!(judged(&record(2, &key, body(id(1), "hello"))), [], "the same record again is the same job");
    assert_eq!(judged(&record(3, &key, body(id(1), "other"))), [Rule::SameId]);
    let keyed = |random, text: &str| {
        format!(r#"{{"id":"{}","task":"chat","input":{{"text":"{text}"}},"idempotency_key":"k"}}"#, id(random))
    };
    assert_eq!(judged(&record(4, "default/k", keyed(7, "a"))), []);
    assert_eq!(judged(&record(5, "default/k", keyed(8, "a"))), []);
    assert_eq!(judged(&record(6, "default/k", keyed(9, "b"))), [Rule::SameKey]);
}

#[test]
fn the_relays_own_copy_of_a_misplaced_record_is_not_judged_again() {
    let mut lane = Lane::new(PARTITIONS);
    let mut misplaced = good(1);
    misplaced.at.partition = (misplaced.at.partition + 1) % PARTITIONS;
    assert_eq!(lane.judge(&misplaced).unwrap().breaches.len(), 1);
    let mut moved = good(2);
    moved.headers.push((HEADER_MOVED.to_owned(), format!("{}/{}", misplaced.at, misplaced.offset).into()));
    assert!(lane.judge(&moved).is_none());
    // A record that only says so is judged.
    moved.headers[0].1 = "media.jobs.default/0/99".into();
    assert_eq!(lane.judge(&moved).unwrap().breaches[0].rule, Rule::Headers);
}
