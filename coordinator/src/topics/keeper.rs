//! Creates and checks the topics at start, then watches that the log can be used; says in `/readyz` what is missing.

use std::sync::Arc;
use std::time::Duration;

use relay_log::port::{Log, LogError, Topic, TopicSpec, TopicState};
use relay_runtime::backoff::{full_jitter, retry_delay};
use relay_runtime::ops_http::Readiness;
use relay_runtime::random::Random;
use tokio_util::sync::CancellationToken;

/// Readiness code: the log cannot be reached.
pub const LOG: &str = "log";
/// Readiness code: topics are missing or not as they should be.
pub const TOPICS: &str = "topics";

const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Time between two looks at a log that can be used.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);

/// Writes the commands that create the given topics.
pub type Commands = Box<dyn Fn(&[TopicSpec]) -> Vec<String> + Send + Sync>;

/// What happens to missing topics.
pub enum Missing {
    /// They are created.
    Create,
    /// The operator is shown these commands, on standard error, once for each set of missing topics.
    Print(Commands),
}

/// Keeps an eye on the topics.
pub struct TopicKeeper {
    log: Arc<dyn Log>,
    specs: Vec<TopicSpec>,
    missing: Missing,
    readiness: Readiness,
    printed: Vec<Topic>,
}

/// Why the topics cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Log(#[from] LogError),
    #[error("topics are missing: {}; create them by the commands on standard error, or set kafka.create_topics", .0.join(", "))]
    Missing(Vec<Topic>),
    #[error("{}; partition counts are fixed for ever: correct the [topics] settings, or use another Kafka cluster", .0.join(", "))]
    Partitions(Vec<String>),
    #[error("topics drop records that must be kept: {}", .0.join("; "))]
    Retention(Vec<String>),
}

impl TopicKeeper {
    /// A keeper of `specs` in `log`; not ready until [`run`](Self::run) has found them all.
    pub fn new(log: Arc<dyn Log>, specs: Vec<TopicSpec>, missing: Missing, readiness: Readiness) -> Self {
        readiness.block(TOPICS, "the topics have not been checked yet");
        Self { log, specs, missing, readiness, printed: Vec::new() }
    }

    /// Creates and checks, with growing pauses until all is well, then watches; until `shutdown`.
    pub async fn run(mut self, random: impl Random, shutdown: CancellationToken) {
        let mut failures = 0_u32;
        let mut checked = false;
        loop {
            let outcome = tokio::select! {
                () = shutdown.cancelled() => return,
                outcome = self.round(checked) => outcome,
            };
            checked = outcome.is_ok();
            failures = if checked { 0 } else { failures.saturating_add(1) };
            self.show(outcome);
            let delay = if checked {
                HEALTH_INTERVAL
            } else {
                let delay = retry_delay(failures, RETRY_MIN, RETRY_MAX);
                delay / 2 + full_jitter(delay / 2, random.next_u64())
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    async fn round(&mut self, checked: bool) -> Result<(), Trouble> {
        if checked {
            return Ok(self.log.health().await?);
        }
        let mut missing = self.missing().await?;
        if !missing.is_empty() && matches!(self.missing, Missing::Create) {
            self.log.create_topics(&missing).await?;
            missing = self.missing().await?;
        }
        if missing.is_empty() {
            return Ok(());
        }
        let names: Vec<Topic> = missing.iter().map(|spec| spec.name.clone()).collect();
        if let Missing::Print(commands) = &self.missing
            && self.printed != names
        {
            let lines = commands(&missing).join("\n");
            eprintln!("These topics are missing, and kafka.create_topics is false. Create them by:\n{lines}");
            self.printed.clone_from(&names);
        }
        Err(Trouble::Missing(names))
    }

    /// The topics that do not exist; an error if one exists with another number of partitions.
    async fn missing(&self) -> Result<Vec<TopicSpec>, Trouble> {
        let states = self.log.check_topics(&self.specs).await?;
        let pairs = || self.specs.iter().zip(&states);
        let wrong = pairs().filter_map(|(spec, state)| match state {
            TopicState::Partitions { found } => {
                Some(format!("{} has {found} partitions instead of {}", spec.name, spec.partitions))
            }
            TopicState::Ready | TopicState::Missing | TopicState::Retention { .. } => None,
        });
        let wrong: Vec<String> = wrong.collect();
        if !wrong.is_empty() {
            return Err(Trouble::Partitions(wrong));
        }
        let forgetful = pairs().filter_map(|(spec, state)| match state {
            TopicState::Retention { to_set } => Some(format!(
                "run kafka-configs.sh --alter --entity-type topics --entity-name {} --add-config {to_set}",
                spec.name
            )),
            _ => None,
        });
        let forgetful: Vec<String> = forgetful.collect();
        if !forgetful.is_empty() {
            return Err(Trouble::Retention(forgetful));
        }
        let missing = pairs().filter(|(_, state)| matches!(state, TopicState::Missing));
        Ok(missing.map(|(spec, _)| spec.clone()).collect())
    }

    fn show(&self, outcome: Result<(), Trouble>) {
        match outcome {
            Ok(()) => {
                self.readiness.clear(TOPICS);
                self.readiness.clear(LOG);
            }
            Err(Trouble::Log(error)) => self.readiness.block(LOG, error.to_string()),
            Err(trouble) => {
                self.readiness.block(TOPICS, trouble.to_string());
                self.readiness.clear(LOG);
            }
        }
    }
}
