//! Kafka's errors as the port's.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::port::LogError;

/// The code inside an error, if it has one.
pub(super) fn code_of(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::Transaction(error) => Some(error.code()),
        other => other.rdkafka_error_code(),
    }
}

/// `error`, which came up while `what` was tried.
pub(super) fn log_error(what: &str, error: &KafkaError) -> LogError {
    match code_of(error) {
        Some(code) if is_denial(code) => LogError::Denied(format!("{what}: {code}")),
        _ => LogError::Unavailable(format!("{what}: {error}")),
    }
}

/// True if an operator must act before trying again can help.
pub(super) fn is_denial(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::PolicyViolation
            | Code::InvalidReplicationFactor
            | Code::InvalidTransactionTimeout
            | Code::UnsupportedVersion
            | Code::UnsupportedSASLMechanism
            | Code::SecurityDisabled
    )
}

/// True if another holder of the transactional id has taken it over.
pub(super) fn is_fencing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)
}

/// True if the topic or partition is not there.
pub(super) fn is_unknown_partition(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition)
}
