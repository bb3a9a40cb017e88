//! Whether topics forget as they should: a topic that drops what is needed loses jobs without a word.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, OwnedResourceSpecifier, ResourceSpecifier};

use super::KafkaSettings;
use super::context::Plain;
use super::errors::{is_denial, log_error};
use super::query::Query;
use super::topics;
use crate::port::{LogError, Retention, TopicSpec, TopicState};

/// How each topic stands, its retention included.
pub(super) async fn check(
    admin: &AdminClient<Plain>,
    query: &Arc<Query>,
    settings: &KafkaSettings,
    specs: &[TopicSpec],
) -> Result<Vec<TopicState>, LogError> {
    let mut states = topics::check(query, specs).await?;
    let there: Vec<_> = specs.iter().zip(&states).filter(|(_, state)| **state == TopicState::Ready).collect();
    if there.is_empty() {
        return Ok(states);
    }
    let asked: Vec<_> = there.iter().map(|(spec, _)| ResourceSpecifier::Topic(&spec.name)).collect();
    let timeout = Duration::from_millis(settings.request_timeout_ms.into());
    let options = AdminOptions::new().request_timeout(Some(timeout));
    let answers = admin.describe_configs(&asked, &options).await;
    let answers = answers.map_err(|error| log_error("asking for the configuration of topics", &error))?;
    let mut configs: HashMap<String, ConfigResource> = HashMap::new();
    for answer in answers {
        match answer {
            Ok(config) => {
                if let OwnedResourceSpecifier::Topic(name) = &config.specifier {
                    configs.insert(name.clone(), config);
                }
            }
            Err(code) if is_denial(code) => {
                tracing::warn!(%code, "the retention of a topic is not checked: the right to describe its configuration is missing");
            }
            Err(code) => {
                return Err(LogError::Unavailable(format!("asking for the configuration of topics: {code}")));
            }
        }
    }
    for (spec, state) in specs.iter().zip(&mut states) {
        let Some(config) = configs.get(&*spec.name).filter(|_| *state == TopicState::Ready) else { continue };
        let value = |key: &str| config.get(key).and_then(|entry| entry.value.as_deref());
        if let Some(to_set) = wrong(spec.retention, value) {
            *state = TopicState::Retention { to_set };
        }
    }
    Ok(states)
}

/// What must be set, as `key=value`, for a topic to keep at least what `retention` says; `None` if it does.
fn wrong<'a>(retention: Retention, value: impl Fn(&str) -> Option<&'a str>) -> Option<String> {
    let number = |key| value(key).and_then(|text| text.parse::<i128>().ok());
    let wanted_ms = match retention {
        Retention::Compact => {
            return (value("cleanup.policy") != Some("compact")).then(|| "cleanup.policy=compact".to_owned());
        }
        Retention::Forever => -1,
        Retention::Age(age) => i128::try_from(age.as_millis()).unwrap_or(i128::MAX),
    };
    let mut to_set = Vec::new();
    if value("cleanup.policy") != Some("delete") {
        to_set.push("cleanup.policy=delete".to_owned());
    }
    // Negative is for ever.
    let keeps = number("retention.ms").is_some_and(|ms| ms < 0 || (wanted_ms >= 0 && ms >= wanted_ms));
    if !keeps {
        to_set.push(format!("retention.ms={wanted_ms}"));
    }
    if number("retention.bytes").is_none_or(|bytes| bytes >= 0) {
        to_set.push("retention.bytes=-1".to_owned());
    }
    (!to_set.is_empty()).then(|| to_set.join(","))
}

#[cfg(test)]
#[path = "forgetting_test.rs"]
mod tests;
