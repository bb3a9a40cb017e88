//! What a topic must be set to.

use super::*;

const HOUR: Retention = Retention::Age(Duration::from_secs(3_600));

fn check(retention: Retention, policy: &str, ms: &str, bytes: &str) -> Option<String> {
    let values = HashMap::from([("cleanup.policy", policy), ("retention.ms", ms), ("retention.bytes", bytes)]);
    wrong(retention, |key| values.get(key).copied())
}

#[test]
fn what_keeps_enough_is_right() {
    assert_eq!(check(Retention::Forever, "delete", "-1", "-1"), None);
    assert_eq!(check(HOUR, "delete", "3600000", "-1"), None);
    assert_eq!(check(HOUR, "delete", "7200000", "-1"), None);
    assert_eq!(check(HOUR, "delete", "-1", "-1"), None);
    assert_eq!(check(Retention::Compact, "compact", "604800000", "-1"), None);
}

#[test]
fn what_drops_too_much_is_named_with_what_to_set() {
    let says = |found: Option<String>| found.expect("it drops too much");
    assert_eq!(says(check(Retention::Forever, "delete", "604800000", "-1")), "retention.ms=-1");
    assert_eq!(says(check(Retention::Forever, "compact", "-1", "-1")), "cleanup.policy=delete");
    assert_eq!(says(check(HOUR, "delete", "3599999", "1000")), "retention.ms=3600000,retention.bytes=-1");
    assert_eq!(says(check(Retention::Compact, "compact,delete", "-1", "-1")), "cleanup.policy=compact");
    assert_eq!(says(check(Retention::Compact, "delete", "-1", "-1")), "cleanup.policy=compact");
}
