//! Orders to drain backends. They lie in the cluster topic, newest of each backend, so they outlast the coordinator; every
//! coordinator reads them there. An order whose backend is listed no more is undone after a while: an address may be
//! another server's by then.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use relay_log::port::{Log, LogError, LogRecord, NewRecord, ReadEvent, Start, TopicPartition};
use relay_protocol::record::BackendDrain;
use relay_protocol::topics;
use relay_runtime::backoff::{full_jitter, retry_delay};
use relay_runtime::clock::Clock;
use relay_runtime::random::Random;
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use crate::registry::RegistryHandle;

const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Time between two looks for orders whose backends are gone.
const LOOK: Duration = Duration::from_secs(1);

/// Gives orders. Cheap to clone.
#[derive(Clone)]
pub struct Drains {
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    registry: RegistryHandle,
}

impl Drains {
    /// Orders go to `log` and are told to `registry`.
    pub fn new(log: Arc<dyn Log>, clock: Arc<dyn Clock>, registry: RegistryHandle) -> Self {
        Self { log, clock, registry }
    }

    /// Drains a backend in the name of `by`, or (`None`) lets it have requests again. Durable when it returns.
    ///
    /// # Errors
    /// The order was not written; nothing changed.
    pub async fn order(&self, backend: &str, by: Option<&str>) -> Result<(), LogError> {
        let at = self.clock.now_ms();
        let drain = by.map(|by| BackendDrain { backend: backend.to_owned(), subject: by.to_owned(), at });
        let value = drain.map(|drain| serde_json::to_vec(&drain)).transpose();
        let value = value.map_err(|error| LogError::Unavailable(error.to_string()))?;
        let record = NewRecord {
            to: cluster(),
            key: Some(BackendDrain::key_of(backend).into_bytes().into()),
            value: value.map(Into::into),
            headers: Vec::new(),
            timestamp_ms: at,
        };
        let offsets = self.log.append(vec![record]).await?;
        self.tell(offsets.first().copied().unwrap_or_default(), backend, by).await;
        Ok(())
    }

    /// Whether a backend is drained.
    pub fn is_drained(&self, backend: &str) -> bool {
        self.registry.roster().orders.drained_by(backend).is_some()
    }

    async fn tell(&self, offset: u64, backend: &str, by: Option<&str>) {
        let told = self.registry.renew(|roster| _ = roster.orders.take(offset, backend, by)).await;
        if let Err(error) = told {
            tracing::warn!(backend, %error, "an order about a backend takes effect a little later");
        }
    }

    async fn read(&self, record: &LogRecord) {
        let Some(backend) = record.key.as_deref().and_then(BackendDrain::backend_of) else { return };
        let by = match &record.value {
            None => None,
            Some(value) => match serde_json::from_slice::<BackendDrain>(value) {
                Ok(drain) => Some(drain.subject),
                Err(error) => {
                    tracing::warn!(backend, offset = record.offset, %error, "an order cannot be read and is ignored");
                    return;
                }
            },
        };
        self.tell(record.offset, backend, by.as_deref()).await;
    }
}

/// Reads the orders and undoes those that are about nothing any more.
pub struct DrainKeeper {
    drains: Drains,
    forget_after: Duration,
    /// Drained backends that are not listed, and since when.
    unlisted: HashMap<Arc<str>, Instant>,
    next: Option<u64>,
}

impl DrainKeeper {
    /// Undoes an order once its backend was not listed for `forget_after`.
    pub fn new(drains: Drains, forget_after: Duration) -> Self {
        Self { drains, forget_after, unlisted: HashMap::new(), next: None }
    }

    /// Runs until `shutdown`; a log that is away is tried again for ever.
    pub async fn run(mut self, random: impl Random, shutdown: CancellationToken) {
        let mut failures = 0_u32;
        loop {
            let error = tokio::select! {
                () = shutdown.cancelled() => return,
                error = self.round(&mut failures) => error,
            };
            if matches!(error, LogError::OffsetOutOfRange { .. }) {
                self.next = None;
            }
            tracing::debug!(%error, "orders about backends cannot be read now");
            failures = failures.saturating_add(1);
            let delay = retry_delay(failures, RETRY_MIN, RETRY_MAX);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(delay / 2 + full_jitter(delay / 2, random.next_u64())) => {}
            }
        }
    }

    /// Reads on; returns only in trouble.
    async fn round(&mut self, failures: &mut u32) -> LogError {
        let start = self.next.map_or(Start::Earliest, Start::Offset);
        let mut reader = match self.drains.log.read(vec![(cluster(), start)]).await {
            Ok(reader) => reader,
            Err(error) => return error,
        };
        let mut look = interval(LOOK);
        loop {
            let event = tokio::select! {
                event = reader.next() => event,
                _ = look.tick() => {
                    self.forget().await;
                    continue;
                }
            };
            match event {
                Ok(ReadEvent::Record(record)) => {
                    self.drains.read(&record).await;
                    self.next = Some(record.offset + 1);
                }
                Ok(ReadEvent::End { next, .. }) => self.next = Some(next),
                Err(error) => return error,
            }
            *failures = 0;
        }
    }

    async fn forget(&mut self) {
        let registry = &self.drains.registry;
        let view = registry.view();
        let is_listed = |backend: &str| view.backends.iter().any(|known| known.url == backend);
        let gone: Vec<Arc<str>> =
            registry.roster().orders.drained().filter(|backend| !is_listed(backend)).cloned().collect();
        self.unlisted.retain(|backend, _| gone.contains(backend));
        for backend in gone {
            let since = *self.unlisted.entry(backend.clone()).or_insert_with(Instant::now);
            if since.elapsed() < self.forget_after {
                continue;
            }
            match self.drains.order(&backend, None).await {
                Ok(()) => tracing::info!(%backend, "it is listed no more: that it was drained is forgotten"),
                Err(error) => tracing::debug!(%backend, %error, "an order is forgotten later"),
            }
        }
    }
}

fn cluster() -> TopicPartition {
    TopicPartition::new(topics::CLUSTER, 0)
}
