//! The log on a real Kafka broker, named by `KAFKA_BOOTSTRAP`. Without one every test here fails and says how to start one.

#[path = "kafka/commits.rs"]
mod commits;
#[path = "kafka/ends.rs"]
mod ends;
#[path = "kafka/outages.rs"]
mod outages;
#[path = "kafka/rebalances.rs"]
mod rebalances;
#[path = "kafka/static_members.rs"]
mod static_members;
#[path = "kafka/support.rs"]
mod support;
#[path = "kafka/zombies.rs"]
mod zombies;

mod conformance;

use std::sync::Arc;

use async_trait::async_trait;
use relay_log::port::Log;

/// A new connection to the broker under test each time.
struct Broker;

#[async_trait]
impl conformance::Harness for Broker {
    async fn log(&self) -> anyhow::Result<Arc<dyn Log>> {
        Ok(Arc::new(support::log()?))
    }

    async fn reopen(&self) -> anyhow::Result<Arc<dyn Log>> {
        self.log().await
    }
}

conformance::conformance!(anyhow::Ok(Broker));
