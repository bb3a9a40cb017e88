//! What the settings refuse, and what they keep to themselves.

use super::*;

fn refused(change: impl FnOnce(&mut KafkaSettings)) -> &'static str {
    let mut settings = KafkaSettings::default();
    change(&mut settings);
    settings.validate().unwrap_err().key
}

#[test]
fn the_defaults_are_valid() {
    assert_eq!(KafkaSettings::default().validate(), Ok(()));
    assert_eq!(KafkaSettings::single_broker("a:1,[::1]:9092").validate(), Ok(()));
}

#[test]
fn each_bad_value_names_its_key() {
    assert_eq!(refused(|s| s.brokers = String::new()), "brokers");
    assert_eq!(refused(|s| s.brokers = "host".to_owned()), "brokers");
    assert_eq!(refused(|s| s.brokers = "a:1,b:0".to_owned()), "brokers");
    assert_eq!(refused(|s| s.client_id = String::new()), "client_id");
    assert_eq!(refused(|s| s.heartbeat_interval_ms = 2_001), "heartbeat_interval_ms");
    assert_eq!(refused(|s| s.transaction_timeout_ms = 6_001), "transaction_timeout_ms");
    assert_eq!(refused(|s| s.delivery_timeout_ms = 0), "delivery_timeout_ms");
    assert_eq!(refused(|s| s.min_in_sync_replicas = 4), "min_in_sync_replicas");
    assert_eq!(refused(|s| s.replication_factor = 0), "replication_factor");
    assert_eq!(refused(|s| s.append_buffer_bytes_max = 1), "append_buffer_bytes_max");
}

#[test]
fn properties_that_carry_a_promise_cannot_be_overridden() {
    for key in RESERVED {
        let reason = |s: &mut KafkaSettings| drop(s.extra.insert(key.to_owned(), "x".to_owned()));
        assert_eq!(refused(reason), "extra", "{key}");
    }
}

#[test]
fn unknown_keys_stop_the_start() {
    let parse = |text: &str| serde_json::from_str::<KafkaSettings>(text);
    assert_eq!(parse(r#"{"brokers":"k:1"}"#).unwrap().brokers, "k:1");
    let error = parse(r#"{"broker":"k:1"}"#).unwrap_err().to_string();
    assert!(error.contains("unknown field `broker`"), "{error}");
}

#[test]
fn passwords_are_not_shown() {
    let mut settings = KafkaSettings::default();
    settings.extra.insert("sasl.password".to_owned(), "hunter2".to_owned());
    let shown = format!("{settings:?}");
    assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
}
