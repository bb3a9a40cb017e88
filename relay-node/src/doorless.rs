//! A node without sockets: everything behind its doors, on ports that are given. What drives it calls the doors' handlers.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use object_store::ObjectStore;
use relay_log::port::Log;
use relay_runtime::clock::Clock;
use relay_runtime::random::Random;
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::backend::pool::Connect;
use crate::cluster::wire::Wire;
use crate::intake::lane::LaneHandle;
use crate::node;
use crate::settings::Settings;
use crate::state::NodeState;

/// What a node reaches the world through.
pub struct Ports {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Random bits.
    pub random: Arc<dyn Random>,
    /// What does built-in tasks.
    pub builtin: Arc<dyn Backend>,
    /// Makes the client of a backend.
    pub connect: Box<Connect>,
    /// The object store, instead of the one that the settings name.
    pub store: Arc<dyn ObjectStore>,
    /// Brings questions to the coordinators that the settings name.
    pub coordinators: Box<dyn Wire>,
}

/// A running node without sockets. Cheap to clone.
#[derive(Clone)]
pub struct Doorless {
    /// Shared state, for the doors' handlers.
    pub state: Arc<NodeState>,
    lanes: Arc<OnceLock<Vec<LaneHandle>>>,
    stop: CancellationToken,
}

impl Doorless {
    /// Starts a node on the current thread, within a `LocalSet`; `state.readiness` tells when it takes work. Its tasks end with
    /// the `LocalSet`.
    ///
    /// # Errors
    /// A setting that cannot be used.
    pub fn start(settings: Settings, ports: Ports) -> anyhow::Result<Self> {
        settings.check()?;
        let log = ports.log.clone();
        let state = Arc::new(node::state_on(settings, ports)?);
        let lanes = Arc::new(OnceLock::new());
        let stop = CancellationToken::new();
        node::keep_link(&state, &stop);
        let starting = node::go_online(state.clone(), log, lanes.clone(), stop.clone());
        actix_rt::spawn(async move {
            if let Err(error) = starting.await {
                tracing::error!(error = format!("{error:#}"), "refusing to start");
            }
        });
        Ok(Self { state, lanes, stop })
    }

    /// Ends in order, as [`node::Node::stop`] does: sessions told, running jobs ended within `grace` and committed, groups left.
    pub async fn stop(&self, grace: Duration) {
        self.state.readiness.block("draining", "the node is going down");
        self.state.leaving.cancel();
        self.state.draining.cancel();
        for lane in self.lanes.get().cloned().unwrap_or_default() {
            lane.drain(grace).await;
        }
        self.stop.cancel();
    }
}
