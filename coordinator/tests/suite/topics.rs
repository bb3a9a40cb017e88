//! The list of topics.

use std::collections::BTreeSet;
use std::time::Duration;

use coordinator::Settings;
use coordinator::topics::{TopicSettings, lanes, specs};
use proptest::prelude::*;
use relay_log::port::{Retention, TopicSpec};

fn settings() -> TopicSettings {
    Settings::defaults().unwrap().topics
}

fn spec(name: &str, partitions: u32, retention: Retention) -> TopicSpec {
    TopicSpec { name: name.into(), partitions, retention }
}

fn days(days: u64) -> Retention {
    Retention::Age(Duration::from_secs(days * 86_400))
}

#[test]
fn the_defaults_are_these() {
    let of_lane = |lane: &str| {
        [
            spec(&format!("media.jobs.{lane}"), 8, Retention::Forever),
            spec(&format!("media.control.{lane}"), 8, days(7)),
            spec(&format!("media.dedup.{lane}"), 8, days(2)),
            spec(&format!("media.parked.{lane}"), 8, Retention::Forever),
            spec(&format!("media.retry.{lane}.1"), 8, Retention::Forever),
            spec(&format!("media.retry.{lane}.2"), 8, Retention::Forever),
            spec(&format!("media.retry.{lane}.3"), 8, Retention::Forever),
            spec(&format!("media.retry.{lane}.4"), 8, Retention::Forever),
            spec(&format!("media.retry.{lane}.5"), 8, Retention::Forever),
        ]
    };
    let shared = [
        spec("media.events", 8, days(7)),
        spec("media.partials", 8, days(1)),
        spec("media.dlq", 8, days(30)),
        spec("media.audit", 4, days(30)),
        spec("media.cluster", 1, Retention::Compact),
        spec("media.election", 1, Retention::Compact),
    ];
    let lanes = ["default", "default.interactive", "default.batch"].map(of_lane);
    assert_eq!(specs(&settings()).unwrap(), [lanes.concat(), shared.to_vec()].concat());
}

#[test]
fn a_lane_may_have_its_own_partitions_and_0_hours_is_for_ever() {
    let lanes = vec!["default".to_owned(), "slow ; partitions=3".to_owned()];
    let all = specs(&TopicSettings { lanes, dead_letter_retention_h: 0, ..settings() }).unwrap();
    assert_eq!(all[9], spec("media.jobs.slow", 3, Retention::Forever));
    assert_eq!(all[10], spec("media.control.slow", 3, days(7)));
    assert_eq!(all[11], spec("media.dedup.slow", 3, days(2)));
    assert!(all.contains(&spec("media.dlq", 8, Retention::Forever)));
}

#[test]
fn what_cannot_be_meant_is_refused_with_the_key() {
    let refuse = |settings: TopicSettings| specs(&settings).unwrap_err().to_string();
    let with_lanes = |lanes: &[&str]| {
        refuse(TopicSettings { lanes: lanes.iter().map(|lane| (*lane).to_owned()).collect(), ..settings() })
    };
    assert!(with_lanes(&["fast"]).contains("\"default\" is missing"));
    assert!(with_lanes(&["default", "default"]).contains("twice"));
    for lane in ["", "a b", "a.b", "x;partitions=no", "x;slots=2", "x;partitions=0", "x;partitions=4097"] {
        assert!(with_lanes(&["default", lane]).starts_with("topics.lanes: "), "{lane:?}");
    }
    assert!(refuse(TopicSettings { event_partitions: 0, ..settings() }).starts_with("topics.event_partitions"));
    assert!(refuse(TopicSettings { event_retention_h: 0, ..settings() }).starts_with("topics.event_retention_h"));
    assert!(refuse(TopicSettings { dedup_retention_h: 0, ..settings() }).starts_with("topics.dedup_retention_h"));
    let outlived = refuse(TopicSettings { dedup_retention_h: 48, event_retention_h: 47, ..settings() });
    assert!(outlived.starts_with("topics.dedup_retention_h") && outlived.contains("(47)"), "{outlived}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_topic_once_and_control_and_dedup_as_wide_as_their_jobs(
        more in prop::collection::btree_map("[a-z]{1,8}", 1_u32..100, 0..5),
        lane_partitions in 1_u32..100,
    ) {
        let mut names = vec!["default".to_owned()];
        names.extend(more.iter().filter(|(name, _)| *name != "default").map(|(name, n)| format!("{name};partitions={n}")));
        let settings = TopicSettings { lanes: names, lane_partitions, ..settings() };
        let all = specs(&settings).unwrap();
        let distinct: BTreeSet<_> = all.iter().map(|spec| spec.name.clone()).collect();
        prop_assert_eq!(distinct.len(), all.len());
        for (lane, partitions) in lanes(&settings).unwrap() {
            for topic in ["jobs", "control", "dedup"].map(|kind| format!("media.{kind}.{lane}")) {
                prop_assert_eq!(all.iter().find(|spec| *spec.name == *topic).map(|spec| spec.partitions), Some(partitions));
            }
        }
    }
}
