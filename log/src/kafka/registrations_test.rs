//! Whom a look finds dead.

use super::*;

const GROUP: &str = "lane";

fn member(group: &str, node: &str, incarnation: u64) -> MemberRegistration {
    MemberRegistration {
        group: group.to_owned(),
        client_id: node.to_owned(),
        transactional_id: format!("{group}.{node}"),
        incarnation,
    }
}

/// The records, in order; `false` is a tombstone.
fn registered(records: &[(&MemberRegistration, bool)]) -> Registrations {
    let mut registrations = Registrations::default();
    for (offset, (member, there)) in (0..).zip(records) {
        let value = there.then(|| serde_json::to_vec(member).unwrap());
        registrations.take(offset, Some(member.key().as_bytes()), value.as_deref());
    }
    registrations
}

fn names(live: &[&str]) -> BTreeSet<String> {
    live.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn dead_is_who_registered_and_is_no_member_any_more() {
    let (a, b, other) = (member(GROUP, "a", 1), member(GROUP, "b", 1), member("other", "c", 1));
    let registrations = registered(&[(&a, true), (&b, true), (&other, true)]);
    let dead = |live: &[&str]| registrations.look(GROUP, &names(live)).dead;
    assert_eq!(dead(&["a", "b"]), []);
    assert_eq!(dead(&["b"]), std::slice::from_ref(&a));
    assert_eq!(dead(&[]), [b, a], "the latest first");
}

#[test]
fn who_left_in_order_or_was_fenced_is_not_fenced_again() {
    let a = member(GROUP, "a", 1);
    assert_eq!(registered(&[(&a, true), (&a, false)]).look(GROUP, &names(&[])), Found::default());
    let again = registered(&[(&a, true), (&a, false), (&a, true)]);
    assert_eq!(again.look(GROUP, &names(&[])).dead, [a], "and can register again");
}

#[test]
fn of_several_lives_only_the_one_registered_last_counts() {
    // The numbers fall: clocks may jump, the order of the topic does not.
    let (old, new) = (member(GROUP, "a", 9), member(GROUP, "a", 3));
    let registrations = registered(&[(&old, true), (&new, true)]);
    let expected = Found { dead: vec![new.clone()], superseded: vec![old.clone()] };
    assert_eq!(registrations.look(GROUP, &names(&["b"])), expected);
    assert_eq!(registrations.look(GROUP, &names(&["a"])), Found { dead: vec![], superseded: vec![old.clone()] });
    // The tombstone of the earlier life leaves the later one.
    assert_eq!(registered(&[(&old, true), (&new, true), (&old, false)]).look(GROUP, &names(&[])).dead, [new]);
}

#[test]
fn so_many_are_fenced_at_a_time_and_no_more() {
    let members: Vec<_> = (0..40).map(|n| member(GROUP, &format!("node-{n}"), 1)).collect();
    let records: Vec<_> = members.iter().map(|member| (member, true)).collect();
    let dead = registered(&records).look(GROUP, &names(&[])).dead;
    assert_eq!(dead.len(), FENCED_AT_A_TIME_MAX);
    assert_eq!(dead[0], members[39]);
}

#[test]
fn what_is_no_registration_changes_nothing() {
    let mut registrations = Registrations::default();
    let a = member(GROUP, "a", 1);
    let value = serde_json::to_vec(&a).unwrap();
    for (key, value) in [
        (Some(&b"object-store"[..]), Some(&b"an id"[..])),
        (Some(b"member/\xff"), Some(&value)),
        (Some(b"member/lane.a/1"), Some(b"{}")),
        (Some(b"member/lane.a/2"), Some(&value)), // under a key that is not its own
        (Some(b"member/lane.a/1"), None),
        (None, Some(&value)),
        (None, None),
    ] {
        registrations.take(0, key, value);
    }
    assert_eq!(registrations.look(GROUP, &names(&[])), Found::default());
}
