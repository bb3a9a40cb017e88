//! Whom a node asks after which answer.

use std::time::Duration;

use super::{Leader, Replaced};

fn leader() -> Leader {
    Leader::new(["http://a", "http://b", "http://c"].map(str::to_owned).to_vec())
}

fn not_leader(named: Option<&str>) -> Vec<u8> {
    let mut error = serde_json::json!({ "code": "not_leader", "message": "m", "retryable": true });
    if let Some(url) = named {
        error["leader"] = url.into();
    }
    serde_json::json!({ "error": error }).to_string().into_bytes()
}

#[test]
fn the_named_leader_is_asked_and_else_the_next_one() {
    let mut leader = leader();
    assert!(leader.turned_away("http://a", 503, &not_leader(Some("http://c/"))));
    assert_eq!(leader.url(), "http://c");
    leader.silent("http://c");
    assert_eq!(leader.url(), "http://a");
    assert!(leader.turned_away("http://a", 503, &not_leader(None)));
    assert_eq!(leader.url(), "http://b");
}

#[test]
fn strangers_and_the_refuser_itself_are_not_followed() {
    for named in ["http://stranger", "http://a"] {
        let mut leader = leader();
        assert!(leader.turned_away("http://a", 503, &not_leader(Some(named))));
        assert_eq!(leader.url(), "http://b");
    }
}

#[test]
fn other_answers_are_answers() {
    let mut leader = leader();
    assert!(!leader.turned_away("http://a", 503, br#"{"error":{"code":"draining","message":"m","retryable":true}}"#));
    assert!(!leader.turned_away("http://a", 503, b"<html>"));
    assert!(!leader.turned_away("http://a", 200, &not_leader(Some("http://b"))));
    assert_eq!(leader.url(), "http://a");
}

#[test]
fn who_turned_away_late_does_not_move_the_others_on() {
    let mut leader = leader();
    leader.silent("http://a");
    leader.silent("http://a");
    assert_eq!(leader.url(), "http://b");
}

#[test]
fn an_older_leader_is_not_listened_to() {
    let mut leader = leader();
    assert_eq!(leader.answered(7), Ok(()));
    assert_eq!(leader.answered(7), Ok(()));
    assert_eq!(leader.answered(6), Err(Replaced { incarnation: 6, newest: 7 }));
    assert_eq!(leader.answered(9), Ok(()));
}

#[test]
fn once_its_lease_is_over_the_leader_of_a_new_topic_is_listened_to() {
    let mut leader = leader();
    assert_eq!(leader.answered(1_700_000_000_000), Ok(()));
    assert!(leader.answered(3).is_err());
    leader.forget();
    assert_eq!(leader.answered(3), Ok(()));
    assert!(leader.answered(2).is_err());
}

#[test]
fn one_that_did_not_answer_is_not_waited_for_as_long_until_it_is_seen_to_be_slow() {
    let (mut leader, full) = (leader(), Duration::from_millis(600));
    assert_eq!(leader.patience("http://a", full), full);
    for _ in 0..12 {
        leader.silent("http://a");
        assert_eq!(leader.patience("http://a", full), full / 4);
    }
    assert_eq!(leader.patience("http://b", full), full);
    leader.silent("http://a");
    assert_eq!(leader.patience("http://a", full), full);
    leader.spoke("http://a");
    leader.silent("http://a");
    assert_eq!(leader.patience("http://a", full), full / 4);
}
