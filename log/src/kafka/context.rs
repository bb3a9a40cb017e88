//! What librdkafka's clients tell while they work: their log lines and errors, as tracing events.

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

use super::properties::Property;
use crate::port::LogError;

/// Context of clients without callbacks of their own.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Plain;

impl ClientContext for Plain {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_client_error(&error, reason);
    }
}

impl ConsumerContext for Plain {}

/// A line of librdkafka's own log.
pub(super) fn log_line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, message, "librdkafka");
        }
        // A broker that cannot be reached is told once a second as an error; whoever calls gets it as `Unavailable`.
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::debug!(facility, message, "librdkafka"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::trace!(facility, message, "librdkafka");
        }
    }
}

/// An error of a client that belongs to no call.
pub(super) fn log_client_error(error: &KafkaError, reason: &str) {
    tracing::debug!(%error, reason, "kafka client");
}

/// Makes a client of these properties.
///
/// # Errors
/// [`LogError::Denied`] if librdkafka refuses a property: an operator must mend the settings.
pub(super) fn create<T, C>(properties: Vec<Property>, context: C) -> Result<T, LogError>
where
    T: FromClientConfigAndContext<C>,
    C: ClientContext,
{
    let mut config = ClientConfig::new();
    for (key, value) in properties {
        config.set(key, value);
    }
    config
        .create_with_context(context)
        .map_err(|error| LogError::Denied(format!("these settings are not valid: {error}")))
}
