//! When a node that no leader answers stops to use what it was lent.

use super::Lease;

const TTL: u64 = 5_000;

fn lent() -> Lease {
    let mut lease = Lease::default();
    lease.answered(10_000, TTL);
    lease
}

#[test]
fn without_an_answer_or_a_look_it_ends_in_time() {
    let mut lease = lent();
    assert!(!lease.ends(14_499));
    assert!(lease.ends(14_500), "a tenth before the leader counts the node as gone");
    assert!(!lease.ends(20_000), "told once");
    lease.answered(30_000, TTL);
    assert!(!lease.ends(34_499) && lease.ends(34_500));
}

#[test]
fn while_nobody_leads_it_does_not_end() {
    let mut lease = lent();
    for now in (11_000..100_000).step_by(250) {
        lease.looked((now, now), 7);
        assert!(!lease.ends(now), "at {now}");
    }
    // The log cannot be looked at any more: somebody may lead now.
    assert!(!lease.ends(99_750 + 4_499));
    assert!(lease.ends(99_750 + 4_500));
}

#[test]
fn a_leader_that_lives_and_does_not_answer_ends_it_in_time() {
    let mut lease = lent();
    for (beats, now) in (11_000..14_500).step_by(250).enumerate() {
        lease.looked((now, now), beats as u64 / 2);
        assert!(!lease.ends(now));
    }
    assert!(lease.ends(14_500));
}

#[test]
fn a_leader_that_was_silent_for_a_moment_has_not_stopped() {
    let mut lease = lent();
    // It led on for up to two seconds, and counts from the heartbeat that it answered last.
    for now in (11_000..13_000).step_by(250) {
        lease.looked((now, now), 7);
    }
    lease.looked((13_000, 13_000), 8);
    assert!(lease.ends(14_500));
}

#[test]
fn a_new_leader_after_silence_lends_nothing_before_one_lease_from_its_beginning() {
    let mut lease = lent();
    for now in (11_000..20_000).step_by(250) {
        lease.looked((now, now), 7);
    }
    // It claimed after the last look that found nothing new, and beats on.
    for (beats, now) in (20_000..24_250).step_by(250).enumerate() {
        lease.looked((now, now), 8 + beats as u64);
        assert!(!lease.ends(now));
    }
    assert!(lease.ends(19_750 + 4_500));
}

#[test]
fn it_looks_only_where_no_answer_came() {
    let lease = lent();
    assert!(!lease.wants_look(10_999));
    assert!(lease.wants_look(11_000));
    assert!(!Lease::default().wants_look(50_000));
}
