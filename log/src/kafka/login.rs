//! Whether the brokers let this process in: a wrong password or a certificate that is not trusted does not mend itself, so
//! whoever starts is told at once, while a broker that is merely away is waited for.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::properties::{Isolation, Role, properties};
use super::{KafkaSettings, blocking, close_on_own_thread, context, lock, millis};
use crate::port::LogError;

/// Longest wait for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// Wait between two questions.
const RETRY: Duration = Duration::from_millis(50);

/// A topic to ask for; it need not exist.
const TOPIC: &str = "relay-login";

/// OpenSSL's words for a certificate that is not trusted. On a slow machine librdkafka passes them on as a transport failure.
const UNTRUSTED: &str = "certificate verify failed";

/// Waits until some broker has answered a question.
///
/// # Errors
/// [`LogError::Denied`] with the brokers' or TLS' words once every answer within `request_timeout_ms` was a refusal: during a
/// restart a broker may refuse for a moment.
pub(super) async fn wait(settings: &KafkaSettings) -> Result<(), LogError> {
    let refusal = Refusal::default();
    let list = properties(settings, Role::Query(Isolation::Committed));
    let client: Arc<BaseConsumer<Login>> = Arc::new(context::create(list, Login(Arc::clone(&refusal)))?);
    let outcome = watch(&client, &refusal, millis(settings.request_timeout_ms)).await;
    close_on_own_thread(client);
    outcome.map_err(|reason| LogError::Denied(format!("the brokers at {} cannot be used: {reason}", settings.brokers)))
}

async fn watch(client: &Arc<BaseConsumer<Login>>, refusal: &Refusal, patience: Duration) -> Result<(), String> {
    let mut refused_since = None;
    loop {
        let asked = Arc::clone(client);
        if blocking(move || Ok(answers(&asked))).await.map_err(|error| error.to_string())? {
            return Ok(());
        }
        if let Some(reason) = lock(refusal).clone()
            && refused_since.get_or_insert_with(Instant::now).elapsed() >= patience
        {
            return Err(reason);
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Whether a broker answers; what went wrong meanwhile is told to the client's context.
fn answers(client: &BaseConsumer<Login>) -> bool {
    let answered = client.fetch_metadata(Some(TOPIC), ANSWER_TIMEOUT).is_ok();
    while client.poll(Duration::ZERO).is_some() {}
    answered
}

/// Why a broker refused us, in words for an operator.
type Refusal = Arc<Mutex<Option<String>>>;

/// Keeps the refusals among a client's errors.
struct Login(Refusal);

impl ClientContext for Login {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        context::log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode as Code;
        context::log_client_error(&error, reason);
        let advice = match error.rdkafka_error_code() {
            Some(Code::BrokerTransportFailure) if !reason.contains(UNTRUSTED) => return,
            Some(Code::SSL | Code::BrokerTransportFailure) => "correct ssl.ca.location, or the broker's certificate",
            Some(Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism) => {
                "correct sasl.mechanism, sasl.username and sasl.password"
            }
            _ => return,
        };
        *lock(&self.0) = Some(format!("{reason} ({advice} in kafka.extra)"));
    }
}

impl ConsumerContext for Login {}
