//! What the parts of a node share: what is there from the start, and what is there once the log was reached.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use object_store::ObjectStore;
use relay_log::port::Log;
use relay_protocol::{ErrorCode, JobError};
use relay_runtime::clock::Clock;
use relay_runtime::ops_http::Readiness;
use relay_runtime::random::Random;
use tokio_util::sync::CancellationToken;

use crate::audit::Audit;
use crate::backend::pool::Pool;
use crate::cluster::link::CoordinatorLink;
use crate::dlq::DeadLetters;
use crate::events::hub::Hub;
use crate::gateway::handshakes::Handshakes;
use crate::gateway::resume_token::ResumeTokens;
use crate::gateway::sessions::Sessions;
use crate::intake::lane::LaneHandle;
use crate::job::claim_check::ClaimCheck;
use crate::job::url_input::UrlInputs;
use crate::settings::Settings;
use crate::tenants::Tenants;

/// What is there from the start.
pub struct NodeState {
    /// Name of the node.
    pub name: String,
    /// This life of the node: milliseconds since the Unix epoch at its start.
    pub incarnation: u64,
    /// Its settings.
    pub settings: Settings,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Random bits.
    pub random: Arc<dyn Random>,
    /// The object store, if it is not the one that the settings name.
    pub store: Option<Arc<dyn ObjectStore>>,
    /// Backends and their slots.
    pub pool: Pool,
    /// Whether it takes work, and why not.
    pub readiness: Readiness,
    /// Open sessions.
    pub sessions: Sessions,
    /// What each tenant may do on this node.
    pub tenants: Tenants,
    /// Makes and checks resume tokens.
    pub resume_tokens: ResumeTokens,
    /// Connections that have not said hello.
    pub handshakes: Handshakes,
    /// The coordinator, if there is one.
    pub coordinator: Option<CoordinatorLink>,
    /// Cancelled when the node is to stop: no session begins, those there are move to other nodes.
    pub leaving: CancellationToken,
    /// Cancelled when the node begins to stop: sessions say goodbye, nothing new is accepted.
    pub draining: CancellationToken,
    /// Set once the log was reached.
    pub online: OnceLock<Arc<Online>>,
}

/// What is there once the log was reached.
pub struct Online {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Events for whoever watches.
    pub hub: Arc<Hub>,
    /// Inputs and results outside of records.
    pub claims: ClaimCheck,
    /// Inputs to be fetched.
    pub urls: UrlInputs,
    /// The audit trail.
    pub audit: Audit,
    /// Requests about dead letters.
    pub dead_letters: DeadLetters,
    /// Partitions of each lane.
    pub lanes: HashMap<String, u32>,
    /// Reply partition of this node's sessions.
    pub reply_partition: u32,
    /// The lanes that this node serves, once it does.
    pub served: OnceLock<HashMap<String, LaneHandle>>,
}

impl NodeState {
    /// What needs the log.
    ///
    /// # Errors
    /// [`ErrorCode::LogUnavailable`] while the node has not reached it, [`ErrorCode::Draining`] while it stops.
    pub fn online(&self) -> Result<&Arc<Online>, JobError> {
        if self.draining.is_cancelled() {
            return Err(JobError::new(ErrorCode::Draining, "the node is going down: use another"));
        }
        self.online.get().ok_or_else(|| {
            let reasons = self.readiness.reasons();
            let why = reasons.iter().map(|reason| reason.message.as_str()).collect::<Vec<_>>().join("; ");
            JobError::new(ErrorCode::LogUnavailable, format!("the node is not ready yet: {why}"))
        })
    }

    /// What a new session, or a new call, needs.
    ///
    /// # Errors
    /// As [`online`](Self::online); [`ErrorCode::Draining`] as soon as the node is to stop.
    pub fn open(&self) -> Result<&Arc<Online>, JobError> {
        if self.leaving.is_cancelled() {
            return Err(JobError::new(ErrorCode::Draining, "the node is going down: use another"));
        }
        self.online()
    }

    /// Microseconds since the Unix epoch, to the clock's millisecond.
    pub fn now_us(&self) -> u64 {
        self.clock.now_ms() * 1_000
    }
}
