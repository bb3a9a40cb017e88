//! When a node that no leader answers stops to use what it was lent.

use proptest::prelude::*;

use super::{Lease, Taken};

const TTL: u64 = 5_000;

fn lent() -> Lease {
    let mut lease = Lease::default();
    lease.answered(10_010, 10_000, TTL);
    lease
}

#[test]
fn without_an_answer_or_a_look_it_ends_in_time() {
    let mut lease = lent();
    assert!(!lease.ends(14_499));
    assert!(lease.ends(14_500), "a tenth before the leader counts the node as gone");
    assert!(!lease.ends(20_000), "told once");
    assert_eq!(lease.answered(30_010, 30_000, TTL), Taken { ended: false, counts: true });
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

#[test]
fn an_answer_after_the_end_ends_what_ran_before_it_lends_anew() {
    let mut lease = lent();
    // It stood still; the first thing that happens is the answer to a heartbeat that it sent right after waking.
    assert_eq!(lease.answered(20_010, 20_000, TTL), Taken { ended: true, counts: true });
    assert_eq!(lease.over_at(), Some(24_500));
}

#[test]
fn an_answer_that_lay_in_the_socket_for_a_lease_lends_nothing() {
    let mut lease = lent();
    assert_eq!(lease.answered(16_000, 10_500, TTL), Taken { ended: true, counts: false });
    assert_eq!(lease.over_at(), None);
    assert!(!lease.wants_look(16_000));
}

#[test]
fn a_look_that_ends_after_the_lease_does_not_put_its_end_off() {
    let mut lease = lent();
    lease.looked((11_000, 11_000), 7);
    lease.looked((14_400, 14_600), 7);
    assert_eq!(lease.over_at(), Some(14_500));
    assert!(lease.ends(14_600));
}

/// A leader that writes a beat each `BEAT`, while it lives, and from whose stop on another one may claim.
const BEAT: u64 = 500;
/// How long it leads from its last beat on.
const CONFIRM: u64 = 2_000;

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is answered, looked at and missed: the node is done with its slots before the leader may lend them to others, and before
    /// a later one does.
    #[test]
    fn it_is_over_before_anyone_may_lend_the_slots(
        leads_until in 0_u64..8_000,
        next_after in 0_u64..6_000,
        has_next in any::<bool>(),
        reached in prop::collection::vec((prop::bool::weighted(0.06), prop::bool::weighted(0.9), 0_u64..400), 1..80),
    ) {
        // Its beats end, it leads on for `CONFIRM` at most; the next one claims after that, and waits one lease.
        let ends = leads_until / BEAT * BEAT + CONFIRM;
        let next_claims = if has_next { ends + 500 + next_after } else { u64::MAX };
        let records = |at: u64| leads_until.min(at) / BEAT + at.checked_sub(next_claims).map_or(0, |since| 1 + since / BEAT);
        let (mut lease, mut now, mut heard_from) = (Lease::default(), 0, None);
        for (answers, sees_log, step) in reached {
            let sent = now;
            now += step;
            if answers && now <= ends {
                if lease.answered(now, sent, TTL).counts {
                    heard_from = Some(sent);
                }
            } else if sees_log && lease.wants_look(now) {
                lease.looked((sent, now), records(sent + step / 2));
            }
            lease.ends(now);
            let (Some(heard), Some(over)) = (heard_from, lease.over_at()) else { continue };
            // The old one may have heard it as soon as it spoke, and lends its slots one lease after that, if it leads so long; the next one after a lease of its own.
            let lost_at = heard + TTL;
            let lent_at = if lost_at <= ends { lost_at } else { next_claims.saturating_add(TTL) };
            prop_assert!(over < lent_at, "used until {over}, lent at {lent_at}");
        }
    }
}
