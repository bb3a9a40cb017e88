//! Names in JSON, in code and on the command line are the same; events are numbered; both ends agree on a version.

use proptest::prelude::*;
use relay_protocol::event::{JobStatus, TERMINAL_N, seq};
use relay_protocol::hello::{HelloV1, NoCommonVersion, VERSION_MAX, VERSION_MIN, negotiate};
use relay_protocol::limits::{ATTEMPT_NUMBER_MAX, is_lane};
use relay_protocol::session::ResumeV1;
use relay_protocol::task::TASKS;
use relay_protocol::{Event, EventKind, JobId, Priority, topics};
use serde_json::{Value, json};

const KINDS: [EventKind; 11] = [
    EventKind::Accepted,
    EventKind::Started,
    EventKind::Progress,
    EventKind::Partial,
    EventKind::Restarted,
    EventKind::Retrying,
    EventKind::Completed,
    EventKind::Failed,
    EventKind::Cancelled,
    EventKind::Expired,
    EventKind::DeadLettered,
];

fn json_name<T: serde::Serialize>(value: T) -> String {
    let Ok(Value::String(name)) = serde_json::to_value(value) else { panic!("not a name in JSON") };
    name
}

#[test]
fn names_are_the_same_everywhere() {
    for kind in KINDS {
        assert_eq!(json_name(kind), kind.name());
        assert_eq!(EventKind::from_name(kind.name()), Some(kind));
        assert_eq!(
            kind.is_terminal(),
            ["completed", "failed", "cancelled", "expired", "dead_lettered"].contains(&kind.name())
        );
    }
    assert_eq!(EventKind::from_name("done"), None);
    for task in TASKS {
        assert_eq!(json_name(task), task.name());
        assert_eq!(task.name().parse(), Ok(*task));
    }
    for (number, priority) in [Priority::Batch, Priority::Normal, Priority::Interactive].into_iter().enumerate() {
        assert_eq!((usize::from(priority.to_wire()), json_name(priority).parse()), (number, Ok(priority)));
        assert_eq!(Priority::from_wire(number as u8), Some(priority));
    }
    assert_eq!(Priority::from_wire(3), None);
    assert!(Priority::Batch < Priority::Normal && Priority::Normal < Priority::Interactive);
}

#[test]
fn the_state_of_a_job_follows_from_its_last_event() {
    for kind in KINDS {
        let expected = match kind {
            EventKind::Accepted => "queued",
            EventKind::Completed => "completed",
            EventKind::Failed => "failed",
            EventKind::Cancelled => "cancelled",
            EventKind::Expired => "expired",
            EventKind::DeadLettered => "dead_lettered",
            _ => "running",
        };
        assert_eq!(JobStatus::of(Event::new(JobId::new(0, 0, 0), 1, 1, kind, 0)).state, expected);
    }
}

#[test]
fn events_take_fields_of_later_versions() {
    let mut json = serde_json::to_value(Event::new(JobId::new(0, 0, 0), 1, 1, EventKind::Started, 0)).unwrap();
    json["colour"] = json!("red");
    assert_eq!(serde_json::from_value::<Event>(json).unwrap().event, EventKind::Started);
}

#[test]
fn lanes_and_topics() {
    for lane in ["default", "default-interactive", "default.interactive", "A_1.batch", "A_1", &"l".repeat(64)] {
        assert!(is_lane(lane), "{lane}");
        assert_eq!(topics::lane_of(&topics::jobs(lane)), Some(lane));
    }
    for lane in ["", ".batch", "a.b", "a.normal", "a.batch.batch", "a b", "ä", "a/b", &"l".repeat(65)] {
        assert!(!is_lane(lane), "{lane}");
    }
    assert_eq!(topics::lane_of(&topics::control("default")), None);
    assert_eq!(topics::lane_of(&topics::dedup("default")), None);
}

#[test]
fn priorities_have_lanes_of_their_own() {
    for (priority, lane) in
        [(Priority::Interactive, "a.interactive"), (Priority::Normal, "a"), (Priority::Batch, "a.batch")]
    {
        assert_eq!(topics::priority_lane("a", priority), lane);
        let named = Some(priority).filter(|priority| *priority != Priority::Normal);
        assert_eq!(topics::base_lane(lane), ("a", named));
    }
    assert_eq!(topics::base_lane("batch"), ("batch", None));
}

#[test]
fn debug_output_hides_tokens() {
    let hello = HelloV1 { token: Some("s3cret".to_owned()), ..hello(1, 1, &["jobs"]) };
    let resume = ResumeV1 { request: 1, resume_token: "s3cret".to_owned(), jobs: Vec::new() };
    let welcome: relay_protocol::hello::WelcomeV1 =
        serde_json::from_value(crate::support::golden("welcome_v1")["head"].clone()).unwrap();
    let token = welcome.resume_token.clone();
    for text in [format!("{hello:?}"), format!("{resume:#?}"), format!("{welcome:?}")] {
        assert!(!text.contains("s3cret") && !text.contains(&token), "{text}");
        assert!(text.contains("hidden"), "{text}");
    }
}

fn hello(version_min: u8, version_max: u8, capabilities: &[&str]) -> HelloV1 {
    let capabilities = capabilities.iter().map(|name| (*name).to_owned()).collect();
    HelloV1 { version_min, version_max, capabilities, client: "test".to_owned(), token: None, sent_at_us: 0 }
}

#[test]
fn no_version_in_common_says_what_to_do() {
    let too_new = negotiate(&hello(VERSION_MAX + 1, 255, &[]), &[]).unwrap_err();
    assert!(too_new.to_string().ends_with("upgrade the relay or use an older client"), "{too_new}");
    let too_old = negotiate(&hello(0, VERSION_MIN - 1, &[]), &[]).unwrap_err();
    assert!(too_old.to_string().ends_with("upgrade the client"), "{too_old}");
    assert!(negotiate(&hello(1, 0, &[]), &[]).is_err(), "an empty range overlaps nothing");
}

#[test]
fn capabilities_in_common_keep_the_node_s_order() {
    let agreed = negotiate(&hello(0, 255, &["streams", "x", "jobs", "jobs"]), &["jobs", "upload", "streams"]);
    assert_eq!(agreed, Ok((VERSION_MAX, vec!["jobs".to_owned(), "streams".to_owned()])));
}

proptest! {
    #[test]
    fn the_version_is_the_highest_that_both_speak(version_min: u8, version_max: u8) {
        let both = |version: &u8| (VERSION_MIN..=VERSION_MAX).contains(version);
        let highest = (version_min..=version_max).filter(both).max();
        let refused = NoCommonVersion { client_min: version_min, client_max: version_max };
        let agreed = negotiate(&hello(version_min, version_max, &[]), &[]).map(|(version, _)| version);
        prop_assert_eq!(agreed, highest.ok_or(refused));
    }

    /// Later attempts and later events of an attempt have higher numbers, which a double holds exactly.
    #[test]
    fn seq_orders_like_attempt_and_number(a in 0..=ATTEMPT_NUMBER_MAX, m: u32, b in 0..=ATTEMPT_NUMBER_MAX, n: u32) {
        prop_assert_eq!(seq(a, m).cmp(&seq(b, n)), (a, m).cmp(&(b, n)));
        prop_assert!(seq(a, TERMINAL_N) >= seq(a, m));
        prop_assert!(seq(a, m) < 1 << 53);
        prop_assert_eq!(seq(a, m) as f64 as u64, seq(a, m));
    }
}
