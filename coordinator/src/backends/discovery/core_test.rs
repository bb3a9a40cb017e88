//! Names against a plain model, and the cases that operators meet.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::prelude::*;

use super::{Answer, Discovery};
use crate::backends::entry::{BackendEntry, EntryDefaults, SLOTS_TOTAL_MAX, read_all, read_dns};
use crate::backends::roster::{BACKENDS_MAX, Found};

const KEEP_MS: u64 = 1_000;
const DEFAULTS: EntryDefaults<'_> = EntryDefaults { slots: 1, api_key_file: None };

fn statics(entries: &[&str]) -> Vec<BackendEntry> {
    read_all(entries, DEFAULTS).unwrap()
}

fn discovery(fixed: &[&str], names: &[&str]) -> Discovery {
    let fixed = statics(fixed);
    Discovery::new(read_dns(names, &fixed, DEFAULTS).unwrap(), &fixed, KEEP_MS)
}

fn found(addresses: &[&str]) -> Answer {
    Answer::Found(addresses.iter().map(|address| address.parse().unwrap()).collect())
}

fn failed() -> Answer {
    Answer::Failed("refused".to_owned())
}

fn urls(found: &Found) -> Vec<&str> {
    found.backends.iter().map(|entry| &*entry.url).collect()
}

fn problem(found: &Found, at: usize) -> &str {
    found.names[at].problem.as_deref().unwrap_or_default()
}

#[test]
fn every_address_of_both_families_is_a_backend_under_the_name() {
    let mut core = discovery(&[], &["https://ai.test.:8443/v;slots=2"]);
    core.answered(0, 0, (found(&["10.0.0.2", "10.0.0.1"]), found(&["fd00::1"])));
    let found = core.found();
    assert_eq!(urls(&found), ["https://10.0.0.1:8443/v", "https://10.0.0.2:8443/v", "https://[fd00::1]:8443/v"]);
    assert!(found.backends.iter().all(|entry| entry.via.as_deref() == Some("https://ai.test:8443/v")));
    assert!(found.backends.iter().all(|entry| entry.slots == 2));
    assert_eq!((found.names[0].backends, problem(&found, 0)), (3, ""));
}

#[test]
fn a_failure_keeps_what_was_known_for_a_time_and_says_so() {
    let mut core = discovery(&[], &["http://ai.test"]);
    core.answered(0, 0, (found(&["10.0.0.1"]), Answer::Nothing));
    for answer in [failed(), Answer::Nothing, found(&["0.0.0.0"])] {
        core.answered(KEEP_MS - 1, 0, (answer, Answer::Nothing));
        let kept = core.found();
        assert_eq!(urls(&kept), ["http://10.0.0.1"]);
        assert!(problem(&kept, 0).contains("kept for 1000 ms"), "{kept:?}");
    }
    core.answered(KEEP_MS, 0, (failed(), failed()));
    let gone = core.found();
    assert_eq!((urls(&gone).len(), problem(&gone, 0)), (0, "looking up its A records failed (refused)"));
    core.answered(KEEP_MS + 1, 0, (found(&["10.0.0.9"]), Answer::Nothing));
    assert_eq!((urls(&core.found()), problem(&core.found(), 0)), (vec!["http://10.0.0.9"], ""));
}

#[test]
fn one_family_that_fails_takes_nothing_from_the_other() {
    let mut core = discovery(&[], &["http://ai.test"]);
    core.answered(0, 0, (found(&["10.0.0.1"]), found(&["fd00::1"])));
    core.answered(10, 0, (found(&["10.0.0.2"]), failed()));
    assert_eq!(urls(&core.found()), ["http://10.0.0.2", "http://[fd00::1]"]);
    core.answered(20, 0, (found(&["10.0.0.2"]), Answer::Nothing));
    assert_eq!(urls(&core.found()), ["http://10.0.0.2"], "no record of the other family is an answer");
}

#[test]
fn an_address_that_comes_twice_counts_once_where_it_is_listed_first() {
    let names = ["http://a.test:8080;slots=3", "http://b.test:8080", "http://c.test:9090"];
    let mut core = discovery(&["http://10.0.0.1:8080/"], &names);
    for at in 0..3 {
        core.answered(0, at, (found(&["10.0.0.1", "10.0.0.2"]), found(&["::ffff:10.0.0.2"])));
    }
    let found = core.found();
    assert_eq!(urls(&found), ["http://10.0.0.2:8080", "http://10.0.0.1:9090", "http://10.0.0.2:9090"]);
    assert_eq!((found.backends[0].slots, found.names[0].backends), (3, 1));
    assert!(
        problem(&found, 0).starts_with("http://10.0.0.1:8080 counts as http://10.0.0.1:8080's, which is listed before")
    );
    assert!(problem(&found, 1).contains("counts as"), "{}", problem(&found, 1));
}

#[test]
fn what_is_beyond_the_limits_is_left_out_and_counted() {
    let addresses =
        |count: u32| Answer::Found((0..count).map(|n| IpAddr::from((0x0a00_0001 + n).to_be_bytes())).collect());
    let mut core = discovery(&["http://fixed"], &["http://ai.test"]);
    core.answered(0, 0, (addresses(BACKENDS_MAX as u32 + 4), Answer::Nothing));
    let found = core.found();
    assert_eq!(found.backends.len(), BACKENDS_MAX - 1);
    assert!(problem(&found, 0).starts_with("5 addresses are left out"), "{}", problem(&found, 0));
    let mut core = discovery(&[], &["http://ai.test;slots=1000"]);
    core.answered(0, 0, (addresses(20), Answer::Nothing));
    assert_eq!(core.found().backends.len() as u32, SLOTS_TOTAL_MAX / 1_000);
}

#[test]
fn entries_that_could_not_mean_what_was_meant_are_refused() {
    let fixed = statics(&["http://ai.test:8080"]);
    for (entry, words) in [
        ("http://10.0.0.1:8080", "an address is for backends.static"),
        ("http://[::1]:8080", "an address is for backends.static"),
        ("http://AI.test:8080/", "listed twice, or in backends.static too"),
        ("http://ai.test.:8080", "listed twice, or in backends.static too"),
        ("http://ai;family=ipv5", "family=ipv5"),
        ("ai.test", "write http://"),
    ] {
        let error = read_dns(&[entry], &fixed, DEFAULTS).unwrap_err().to_string();
        assert!(error.starts_with("backends.dns") && error.contains(words), "{entry}: {error}");
    }
    let twice = read_all(&["http://a:80", "http://A/"], DEFAULTS).unwrap_err().to_string();
    assert!(twice.contains("twice"), "{twice}");
    assert!(read_all(&["http://a;family=ipv4"], DEFAULTS).is_err());
}

/// An answer about addresses out of four.
fn answers(v6: bool) -> impl Strategy<Value = Answer> {
    let address = move |n: u8| if v6 { format!("fd00::{n}") } else { format!("10.0.0.{n}") }.parse().unwrap();
    prop_oneof![
        prop::collection::btree_set(1_u8..5, 1..4)
            .prop_map(move |of| Answer::Found(of.into_iter().map(address).collect())),
        Just(Answer::Nothing),
        Just(failed()),
    ]
}

fn history() -> impl Strategy<Value = Vec<(u64, usize, Answer, Answer)>> {
    prop::collection::vec((0_u64..700, 0_usize..3, answers(false), answers(true)), 1..30)
}

proptest! {
    #[test]
    fn no_address_comes_twice_and_what_was_answered_last_is_there(history in history()) {
        let mut core = discovery(&["http://10.0.0.1:1"], &["http://a:1", "http://b:1", "http://c:2"]);
        let (mut now_ms, mut last) = (0, vec![None; 3]);
        for (pause, at, v4, v6) in history {
            now_ms += pause;
            last[at] = Some((now_ms, v4.clone(), v6.clone()));
            core.answered(now_ms, at, (v4, v6));
            let found = core.found();
            let places: BTreeSet<&str> = urls(&found).into_iter().collect();
            prop_assert_eq!(places.len(), found.backends.len(), "each once: {:?}", found);
            prop_assert!(!places.contains("http://10.0.0.1:1"), "the static one counts there");
            for (at, port) in [(0, 1), (1, 1), (2, 2)] {
                for answer in last[at].iter().flat_map(|(_, v4, v6)| [v4, v6]) {
                    let Answer::Found(addresses) = answer else { continue };
                    for address in addresses {
                        let host = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
                        let url = format!("http://{host}:{port}");
                        prop_assert!(url == "http://10.0.0.1:1" || places.contains(url.as_str()), "{} is missing", url);
                    }
                }
            }
            prop_assert_eq!(found.names.iter().map(|name| name.backends as usize).sum::<usize>(), found.backends.len());
        }
    }

    /// A model of one name: what is there was answered within the time, or since.
    #[test]
    fn nothing_outlives_its_time(history in history()) {
        let mut core = discovery(&[], &["http://a:1"]);
        let (mut now_ms, mut known, mut believed_ms) = (0, BTreeSet::new(), 0);
        for (pause, _, v4, _) in history {
            now_ms += pause;
            match &v4 {
                Answer::Found(addresses) => (known, believed_ms) = (addresses.clone(), now_ms),
                _ if now_ms - believed_ms >= KEEP_MS => known.clear(),
                _ => {}
            }
            core.answered(now_ms, 0, (v4, Answer::Nothing));
            let wanted: Vec<String> = known.iter().map(|address| format!("http://{address}:1")).collect();
            let found = core.found();
            prop_assert_eq!(urls(&found), wanted);
        }
    }
}
