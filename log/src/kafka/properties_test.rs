//! The properties that the log's promises rest on, client by client.

use std::collections::BTreeMap;

use super::*;

fn of(settings: &KafkaSettings, role: Role<'_>) -> BTreeMap<String, String> {
    properties(settings, role).into_iter().collect() // later ones win, as in librdkafka
}

fn value<'a>(properties: &'a BTreeMap<String, String>, key: &str) -> Option<&'a str> {
    properties.get(key).map(String::as_str)
}

const TRANSACTION: Role<'_> = Role::Transaction { id: "node-1", client_id: "client-1" };
const MEMBER: Role<'_> =
    Role::Member { group: "lane", client_id: "client-1", instance_id: "lane.node-1", read_ahead_records_max: 200 };

#[test]
fn what_is_acknowledged_is_written_everywhere_and_once() {
    let settings = KafkaSettings::default();
    for role in [Role::Append, TRANSACTION] {
        let found = of(&settings, role);
        assert_eq!(value(&found, "acks"), Some("all"), "{role:?}");
        assert_eq!(value(&found, "enable.idempotence"), Some("true"), "{role:?}");
        assert_eq!(value(&found, "linger.ms"), Some("0"), "{role:?}");
    }
}

#[test]
fn whoever_reads_records_sees_committed_ones_only_and_commits_nothing_by_itself() {
    let settings = KafkaSettings::default();
    for role in [Role::Reader, MEMBER, Role::Committed { group: "lane" }, Role::Query(Isolation::Committed)] {
        let found = of(&settings, role);
        assert_eq!(value(&found, "isolation.level"), Some("read_committed"), "{role:?}");
        assert_eq!(value(&found, "enable.auto.commit"), Some("false"), "{role:?}");
    }
    let uncommitted = of(&settings, Role::Query(Isolation::Uncommitted));
    assert_eq!(value(&uncommitted, "isolation.level"), Some("read_uncommitted"));
    for role in [Role::Reader, MEMBER] {
        assert_eq!(
            value(&of(&settings, role), "auto.offset.reset"),
            Some("error"),
            "{role:?}: nothing is skipped silently"
        );
    }
    assert_eq!(value(&of(&settings, Role::Reader), "enable.partition.eof"), Some("true"));
}

#[test]
fn a_member_rebalances_step_by_step_and_within_its_session() {
    let found = of(&KafkaSettings { session_timeout_ms: 9_000, ..KafkaSettings::default() }, MEMBER);
    assert_eq!(value(&found, "group.id"), Some("lane"));
    assert_eq!(value(&found, "client.id"), Some("client-1"));
    assert_eq!(value(&found, "partition.assignment.strategy"), Some("cooperative-sticky"));
    assert_eq!(value(&found, "session.timeout.ms"), Some("9000"));
    assert_eq!(value(&found, "queued.min.messages"), Some("200"));
}

#[test]
fn a_member_keeps_its_place_over_restarts_if_it_is_to() {
    for (static_membership, expected) in [(true, Some("lane.node-1")), (false, None)] {
        let settings = KafkaSettings { static_membership, ..KafkaSettings::default() };
        assert_eq!(value(&of(&settings, MEMBER), "group.instance.id"), expected);
    }
}

#[test]
fn a_transaction_ends_within_its_time_out_and_retries_at_once() {
    let settings = KafkaSettings::default();
    let found = of(&settings, TRANSACTION);
    let number = |key| value(&found, key).unwrap().parse::<u32>().unwrap();
    assert_eq!(value(&found, "transactional.id"), Some("node-1"));
    assert_eq!(number("transaction.timeout.ms"), settings.transaction_timeout_ms);
    assert!(number("transaction.timeout.ms") <= settings.session_timeout_ms);
    assert!(number("message.timeout.ms") <= settings.transaction_timeout_ms);
    assert!(number("socket.timeout.ms") <= settings.transaction_timeout_ms - 100);
    assert_eq!(number("retry.backoff.ms"), 1);
}

#[test]
fn operators_add_what_is_not_reserved_to_every_client() {
    let mut settings = KafkaSettings::default();
    settings.extra.insert("security.protocol".to_owned(), "SASL_SSL".to_owned());
    settings.extra.insert("compression.type".to_owned(), "zstd".to_owned());
    for role in [Role::Append, TRANSACTION, Role::Reader, MEMBER, Role::Admin, Role::Query(Isolation::Committed)] {
        let found = of(&settings, role);
        assert_eq!(value(&found, "security.protocol"), Some("SASL_SSL"), "{role:?}");
        assert_eq!(value(&found, "compression.type"), Some("zstd"), "{role:?}");
        assert_eq!(value(&found, "bootstrap.servers"), Some("127.0.0.1:9092"), "{role:?}");
    }
}
