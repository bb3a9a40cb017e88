//! The topics of the relay: which there are ([`specs`], pure), and the task that creates and checks them ([`keeper`]).

pub mod keeper;

use std::collections::BTreeSet;
use std::time::Duration;

use relay_log::port::{Retention, TopicSpec};
use relay_protocol::id::REPLY_PARTITIONS_MAX;
use relay_protocol::limits::is_lane;
use relay_protocol::topics;
use serde::Deserialize;

/// Most partitions of one topic; job ids can name this many reply partitions.
pub const PARTITIONS_MAX: u32 = REPLY_PARTITIONS_MAX;
/// Most lanes.
pub const LANES_MAX: usize = 256;
/// Partitions of the compacted topics: facts about the cluster, and who leads.
const COMPACT_PARTITIONS: u32 = 1;

/// Section `[topics]`: the same for every coordinator and node of a cluster. Partition counts are fixed for ever.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicSettings {
    /// `NAME` or `NAME;partitions=16`; `default` must be among them.
    pub lanes: Vec<String>,
    /// Partitions of a lane that does not say otherwise.
    pub lane_partitions: u32,
    /// Partitions of `media.events` and `media.partials`.
    pub event_partitions: u32,
    /// Partitions of `media.dlq`.
    pub dead_letter_partitions: u32,
    /// Partitions of `media.audit`.
    pub audit_partitions: u32,
    /// How long requests to cancel are kept, in hours.
    pub control_retention_h: u32,
    /// How long it is kept what jobs ended, in hours: more than the nodes' `dedup.window_h`.
    pub dedup_retention_h: u32,
    /// How long events are kept, in hours: also how long a client can resume.
    pub event_retention_h: u32,
    /// How long `partial` and `progress` events are kept, in hours.
    pub partial_retention_h: u32,
    /// How long dead letters are kept, in hours; 0 is for ever.
    pub dead_letter_retention_h: u32,
    /// How long the audit trail is kept, in hours; 0 is for ever.
    pub audit_retention_h: u32,
}

/// Why the `[topics]` section cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("topics.{key}: {problem}")]
pub struct TopicSettingsError {
    /// Which key.
    pub key: &'static str,
    /// What is wrong, and what to write.
    pub problem: String,
}

/// Every topic of the relay, as it should be: jobs, control and dedup lane by lane, then the shared ones.
///
/// # Errors
/// [`TopicSettingsError`].
pub fn specs(settings: &TopicSettings) -> Result<Vec<TopicSpec>, TopicSettingsError> {
    let mut specs = Vec::new();
    let control = aged("control_retention_h", settings.control_retention_h)?;
    let dedup = aged("dedup_retention_h", settings.dedup_retention_h)?;
    for (lane, partitions) in lanes(settings)? {
        specs.push(spec(&topics::jobs(&lane), partitions, Retention::Forever));
        specs.push(spec(&topics::control(&lane), partitions, control));
        specs.push(spec(&topics::dedup(&lane), partitions, dedup));
        specs.push(spec(&topics::parked(&lane), partitions, Retention::Forever));
        let tiers = (1..=topics::RETRY_TIERS).map(|tier| topics::retry(&lane, tier));
        specs.extend(tiers.map(|name| spec(&name, partitions, Retention::Forever)));
    }
    let events = counted("event_partitions", settings.event_partitions)?;
    let event_age = aged("event_retention_h", settings.event_retention_h)?;
    if settings.dedup_retention_h > settings.event_retention_h {
        let problem = format!(
            "must be at most topics.event_retention_h ({}): a repeated job's result is read from its events",
            settings.event_retention_h
        );
        return Err(TopicSettingsError { key: "dedup_retention_h", problem });
    }
    let dead_letters = counted("dead_letter_partitions", settings.dead_letter_partitions)?;
    let audit = counted("audit_partitions", settings.audit_partitions)?;
    specs.push(spec(topics::EVENTS, events, event_age));
    specs.push(spec(topics::PARTIALS, events, aged("partial_retention_h", settings.partial_retention_h)?));
    specs.push(spec(topics::DEAD_LETTERS, dead_letters, aged_or_forever(settings.dead_letter_retention_h)));
    specs.push(spec(topics::AUDIT, audit, aged_or_forever(settings.audit_retention_h)));
    specs.push(spec(topics::CLUSTER, COMPACT_PARTITIONS, Retention::Compact));
    specs.push(spec(topics::ELECTION, COMPACT_PARTITIONS, Retention::Compact));
    Ok(specs)
}

/// Each lane with its partitions, in the order of the settings.
///
/// # Errors
/// [`TopicSettingsError`]: a name that cannot be part of a topic's, a lane twice, none called `default`.
pub fn lanes(settings: &TopicSettings) -> Result<Vec<(String, u32)>, TopicSettingsError> {
    let refuse = |problem: String| Err(TopicSettingsError { key: "lanes", problem });
    if settings.lanes.len() > LANES_MAX {
        return refuse(format!("at most {LANES_MAX} lanes"));
    }
    let mut seen = BTreeSet::new();
    let mut lanes = Vec::with_capacity(settings.lanes.len());
    for entry in &settings.lanes {
        let (name, partitions) = match entry.split_once(';') {
            None => (entry.trim(), Some(settings.lane_partitions)),
            Some((name, rest)) => (name.trim(), rest.trim().strip_prefix("partitions=").and_then(|n| n.parse().ok())),
        };
        let Some(partitions) = partitions.filter(|_| is_lane(name)) else {
            return refuse(format!(
                "{entry:?}: write NAME or NAME;partitions=N, the name of a-z A-Z 0-9 - _, then .interactive or .batch"
            ));
        };
        if !seen.insert(name) {
            return refuse(format!("{name:?} is listed twice"));
        }
        lanes.push((name.to_owned(), counted("lanes", partitions)?));
    }
    if !seen.contains(topics::DEFAULT_LANE) {
        return refuse(format!("{:?} is missing; it always exists", topics::DEFAULT_LANE));
    }
    Ok(lanes)
}

fn spec(name: &str, partitions: u32, retention: Retention) -> TopicSpec {
    TopicSpec { name: name.into(), partitions, retention }
}

fn counted(key: &'static str, partitions: u32) -> Result<u32, TopicSettingsError> {
    if (1..=PARTITIONS_MAX).contains(&partitions) {
        return Ok(partitions);
    }
    Err(TopicSettingsError { key, problem: format!("partitions must be 1 to {PARTITIONS_MAX}, not {partitions}") })
}

fn aged(key: &'static str, hours: u32) -> Result<Retention, TopicSettingsError> {
    if hours == 0 {
        return Err(TopicSettingsError { key, problem: "must be at least 1 hour".to_owned() });
    }
    Ok(age(hours))
}

fn aged_or_forever(hours: u32) -> Retention {
    if hours == 0 { Retention::Forever } else { age(hours) }
}

fn age(hours: u32) -> Retention {
    Retention::Age(Duration::from_secs(u64::from(hours) * 3_600))
}
