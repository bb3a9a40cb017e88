//! Where requests go once backends are known: earliest end first, short ones first but not for ever, and none to a backend
//! whose requests fail.

use std::collections::BTreeMap;

use relay_protocol::Task;

use super::super::breaker::{BreakerLimits, Ended};
use super::{Decided, Known, Need, Slots, Ticket};
use crate::fair::Weights;

const LIMITS: BreakerLimits =
    BreakerLimits { failures: 3, ejection_ms: 1_000, ejection_ms_max: 60_000, ejected_share_max: 0.5 };

struct Cluster(Slots);

fn sound(seconds: f64) -> Need {
    Need { units: seconds, ..Need::of(Task::Transcribe, Some("m")) }
}

impl Cluster {
    fn of(backends: &[&str], slots: u32) -> Self {
        let known = Known { models: vec!["m".to_owned()], healthy: true, granted: slots };
        let mut cluster = Self(Slots::new(Weights::default(), LIMITS));
        cluster.0.update(backends.iter().map(|name| ((*name).to_owned(), known.clone())).collect(), 0);
        cluster
    }

    /// Backends of one slot that take so many milliseconds for a second of sound.
    fn with_rates(rates: &[(&str, u64)]) -> Self {
        let names: Vec<_> = rates.iter().map(|(name, _)| *name).collect();
        let mut cluster = Self::of(&names, 1);
        let taken: Vec<_> = rates.iter().map(|_| cluster.ask(sound(1.0), 0)).collect();
        for (ticket, at) in taken {
            let name = at.expect("there is a free one");
            let (_, rate) = rates.iter().find(|(other, _)| **other == name).unwrap();
            cluster.end(&name, ticket, *rate, 0);
        }
        cluster
    }

    fn ask(&mut self, need: Need, now_ms: u64) -> (Ticket, Option<String>) {
        let (ticket, decided) = self.0.request(need, now_ms).unwrap();
        (ticket, place_of(&decided, ticket))
    }

    fn end(&mut self, name: &str, ticket: Ticket, worked_ms: u64, now_ms: u64) -> Vec<Decided> {
        self.0.release(name, ticket, Ended::Well { worked_ms: Some(worked_ms) }, now_ms).0
    }

    fn fail(&mut self, name: &str, ticket: Ticket, now_ms: u64) -> bool {
        self.0.release(name, ticket, Ended::Badly { after_ms: 1 }, now_ms).1
    }
}

fn place_of(decided: &[Decided], ticket: Ticket) -> Option<String> {
    decided.iter().find(|one| one.ticket == ticket).map(|one| one.answer.clone().unwrap())
}

#[test]
fn a_request_goes_where_it_should_end_first() {
    let mut cluster = Cluster::with_rates(&[("slow", 40), ("fast", 10)]);
    assert_eq!(cluster.ask(sound(10.0), 1_000).1.as_deref(), Some("fast"));
    // The fast one is free again in 100 ms, and does this in another 100: the slow one takes 400.
    let (held, at) = cluster.ask(sound(10.0), 1_000);
    assert_eq!(at, None, "it waits beside a free slot");
    // Behind that one it would end at the fast one after 300 ms, which is not worth waiting for.
    assert_eq!(cluster.ask(sound(10.0), 1_000).1.as_deref(), Some("slow"));
    assert_eq!((place_of(&cluster.0.look(1_000), held), cluster.0.look_at(1_000)), (None, None), "no slot is free");
}

#[test]
fn a_fast_backend_that_is_late_is_waited_for_no_longer() {
    let mut cluster = Cluster::with_rates(&[("slow", 40), ("fast", 10)]);
    cluster.ask(sound(10.0), 1_000);
    let (held, at) = cluster.ask(sound(10.0), 1_000);
    assert_eq!(at, None);
    assert_eq!(place_of(&cluster.0.look(1_100), held), None, "it should be free any moment");
    assert_eq!(place_of(&cluster.0.look(1_600), held).as_deref(), Some("slow"));
}

#[test]
fn without_anything_learnt_nobody_waits_beside_a_free_slot() {
    let mut cluster = Cluster::of(&["a", "b"], 1);
    let places: Vec<_> = (0..2).map(|_| cluster.ask(sound(10.0), 0).1).collect();
    assert!(places.iter().all(Option::is_some), "{places:?}");
}

#[test]
fn short_ones_go_first_but_not_for_ever() {
    let mut cluster = Cluster::with_rates(&[("only", 10)]);
    let (running, _) = cluster.ask(sound(1.0), 0);
    let (long, _) = cluster.ask(sound(100.0), 0);
    let (short, _) = cluster.ask(sound(1.0), 100);
    let (late, _) = cluster.ask(sound(1.0), 600);
    let mut order = Vec::new();
    let mut running = running;
    while let Some(next) = cluster.end("only", running, 10, 1_000).first() {
        running = next.ticket;
        order.push(running);
    }
    assert_eq!(order, [short, long, late], "the long one takes a second: half a second later others pass it no more");
}

#[test]
fn instant_failures_are_caught_after_three_and_cost_no_more() {
    let mut cluster = Cluster::of(&["good", "bad"], 4);
    let mut lost = 0;
    for now_ms in 0..100 {
        let (ticket, at) = cluster.ask(sound(1.0), now_ms);
        match at.as_deref() {
            Some("bad") => {
                lost += 1;
                cluster.fail("bad", ticket, now_ms);
            }
            Some(name) => drop(cluster.end(name, ticket, 10, now_ms)),
            None => panic!("good has room"),
        }
    }
    assert_eq!(lost, 3);
    assert_eq!(cluster.0.ejected(100).collect::<Vec<_>>(), ["bad"]);
}

#[test]
fn at_most_half_are_ejected_and_who_waits_for_an_ejected_one_is_told_when_it_is_back() {
    let mut cluster = Cluster::of(&["a", "b"], 1);
    for name in ["a", "b"] {
        for _ in 0..3 {
            let elsewhere = if name == "a" { "b" } else { "a" };
            let need = Need { avoid: vec![elsewhere.to_owned()], is_strict: true, ..sound(1.0) };
            let (ticket, at) = cluster.ask(need, 0);
            assert_eq!(at.as_deref(), Some(name));
            cluster.fail(name, ticket, 0);
        }
    }
    assert_eq!(cluster.0.ejected(0).collect::<Vec<_>>(), ["a"], "b would be more than half");
    assert_eq!(cluster.0.back_in(&sound(1.0), 0), None, "b is there");
    let only_a = Need { avoid: vec!["b".to_owned()], is_strict: true, ..sound(1.0) };
    let (waits, at) = cluster.ask(only_a.clone(), 0);
    assert_eq!((at, cluster.0.look_at(0)), (None, Some(100)));
    assert!(cluster.0.can_run(&only_a, 0), "it is back so soon that nobody goes away for that");
    assert_eq!(place_of(&cluster.0.look(999), waits), None);
    assert_eq!(place_of(&cluster.0.look(1_000), waits).as_deref(), Some("a"));
}

#[test]
fn one_that_takes_nothing_is_not_waited_for_by_those_that_others_serve() {
    let mut cluster = Cluster::with_rates(&[("slow", 1_000), ("fast", 1)]);
    let known = |granted| Known { models: vec!["m".to_owned()], healthy: true, granted };
    cluster.0.update(BTreeMap::from([("slow".to_owned(), known(1)), ("fast".to_owned(), known(0))]), 0);
    assert_eq!(cluster.ask(sound(1.0), 0).1.as_deref(), Some("slow"));
}

#[test]
fn a_trial_is_made_beside_old_requests_and_is_not_judged_by_them() {
    let mut cluster = Cluster::of(&["only"], 8);
    let tickets: Vec<_> = (0..6).map(|_| cluster.ask(sound(1.0), 0).0).collect();
    let ejected: Vec<_> = tickets[..3].iter().map(|ticket| cluster.fail("only", *ticket, 0)).collect();
    assert_eq!(ejected, [false, false, true]);
    assert_eq!(cluster.ask(sound(1.0), 500).1, None);
    // Three old ones are still there.
    let trial = cluster.0.look(1_000);
    assert_eq!(trial.len(), 1, "one to see, beside the old ones");
    assert!(!cluster.fail("only", tickets[3], 1_100), "it was sent before the ejection");
    cluster.end("only", tickets[4], 10, 1_100);
    assert_eq!(cluster.ask(sound(1.0), 1_100).1, None, "the trial is not over");
    assert_eq!(cluster.end("only", trial[0].ticket, 10, 1_200).len(), 1);
}

#[test]
fn what_failed_elsewhere_before_ejects_nobody() {
    let mut cluster = Cluster::of(&["only"], 1);
    for _ in 0..9 {
        let (ticket, _) = cluster.ask(Need { is_begun: true, ..sound(1.0) }, 0);
        assert!(!cluster.fail("only", ticket, 0));
    }
}

#[test]
fn a_backend_that_asks_for_a_rest_gets_it_for_that_kind_of_work_alone() {
    let mut cluster = Cluster::of(&["only"], 2);
    let (ticket, _) = cluster.ask(sound(1.0), 0);
    cluster.0.release("only", ticket, Ended::Busy { rest_ms: u64::MAX }, 0);
    let other = || Need { units: 1.0, ..Need::of(Task::Translate, Some("m")) };
    assert_eq!(cluster.ask(other(), 1).1.as_deref(), Some("only"));
    let (waits, at) = cluster.ask(sound(1.0), 1);
    assert_eq!(
        (at, cluster.0.back_in(&sound(1.0), 1)),
        (None, Some(59_999)),
        "as long as the longest ejection at most"
    );
    assert!(!cluster.0.can_run(&sound(1.0), 1) && cluster.0.can_run(&other(), 1));
    assert_eq!(place_of(&cluster.0.look(60_000), waits).as_deref(), Some("only"));
}

#[test]
fn a_busy_backend_for_which_others_wait_is_not_waited_for() {
    let known = |models: &[&str]| Known {
        models: models.iter().map(|model| (*model).to_owned()).collect(),
        healthy: true,
        granted: 1,
    };
    let mut cluster = Cluster::with_rates(&[("slow", 40), ("fast", 10)]);
    cluster.0.update(BTreeMap::from([("slow".to_owned(), known(&["m"])), ("fast".to_owned(), known(&["m", "n"]))]), 0);
    let only_fast = || Need { units: 1.0, ..Need::of(Task::Transcribe, Some("n")) };
    cluster.ask(sound(10.0), 0);
    assert_eq!(cluster.ask(only_fast(), 0).1, None);
    assert_eq!(cluster.ask(sound(10.0), 0).1.as_deref(), Some("slow"));
}

#[test]
fn patience_is_that_of_the_slowest_and_chats_have_none() {
    let mut cluster = Cluster::with_rates(&[("slow", 9_000), ("fast", 10)]);
    let (ticket, at) = cluster.ask(sound(1.0), 0);
    assert_eq!((at.as_deref(), cluster.0.patience_ms("fast", ticket)), (Some("fast"), Some(90_000)));
    let (chat, at) = cluster.ask(Need::of(Task::Chat, Some("m")), 0);
    assert_eq!(cluster.0.patience_ms(&at.unwrap(), chat), None);
}

#[test]
fn what_is_built_in_does_not_count_where_at_most_half_may_be_out() {
    let mut cluster = Cluster::of(&["a", "b", "c"], 1);
    cluster.0.set_builtin(4);
    for name in ["a", "b"] {
        for _ in 0..3 {
            let avoid = ["a", "b", "c"].into_iter().filter(|other| *other != name).map(str::to_owned).collect();
            let (ticket, _) = cluster.ask(Need { avoid, is_strict: true, ..sound(1.0) }, 0);
            cluster.fail(name, ticket, 0);
        }
    }
    assert_eq!(cluster.0.ejected(0).collect::<Vec<_>>(), ["a"], "one of three");
}
