//! Settings of a relay node; meaning, unit and default of each key are in `config/relay-node.toml`.

use std::time::Duration;

use relay_log::kafka::KafkaSettings;
use relay_runtime::auth::AuthSettings;
use relay_runtime::settings::{self, Map, SettingsError};
use relay_runtime::telemetry::TelemetrySettings;
use serde::Deserialize;

use crate::backend::breaker::BreakerLimits;
use crate::backend::localai::LocalAiSettings;
use crate::dlq::DlqSettings;
use crate::events::catch_up::EventSettings;
use crate::fair::{WEIGHT_MAX, Weights};
use crate::gateway::openai::OpenAiSettings;
use crate::intake::earlier::PoisonLimits;
use crate::job::claim_check::StoreSettings;
use crate::job::retry::{RetrySettings, Tiers};
use crate::tenants::TenantSettings;

/// The defaults, as users read them.
pub const DEFAULTS: &str = include_str!("../config/relay-node.toml");

/// Keys whose variable is a comma list.
const LISTS: [&str; 8] = [
    "retry.tiers_ms",
    "lanes.names",
    "inputs.url_allow",
    "inputs.url_allow_private",
    "backends.static",
    "coordinator.url",
    "auth.tokens",
    "tenants.overrides",
];

/// Settings of one relay node.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/relay-node.toml is their documentation")]
pub struct Settings {
    pub listen: String,
    pub node: NodeSettings,
    pub lanes: LanesSettings,
    pub dedup: DedupSettings,
    pub retry: RetrySettings,
    pub poison: PoisonLimits,
    pub breaker: BreakerLimits,
    pub dlq: DlqSettings,
    pub store: StoreSettings,
    pub inputs: InputSettings,
    pub gateway: GatewaySettings,
    pub openai: OpenAiSettings,
    pub tenants: TenantSettings,
    pub events: EventSettings,
    pub builtin: BuiltinSettings,
    pub backends: BackendSettings,
    pub localai: LocalAiSettings,
    pub coordinator: CoordinatorSettings,
    #[serde(default)]
    pub kafka: KafkaSettings,
    pub telemetry: TelemetrySettings,
    #[serde(default)]
    pub auth: AuthSettings,
}

/// Section `[node]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/relay-node.toml is their documentation")]
pub struct NodeSettings {
    pub name: String,
    pub advertised_url: String,
    pub drain_timeout_ms: u64,
    pub move_timeout_ms: u64,
}

/// Section `[lanes]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/relay-node.toml is their documentation")]
pub struct LanesSettings {
    pub names: Vec<String>,
    pub running_max: usize,
    pub waiting_max: usize,
    pub revoke_grace_ms: u64,
    pub handover_timeout_ms: u64,
    pub delete_interval_ms: u64,
    pub weights: Weights,
    pub tenant_share_max: f64,
    pub model_share_max: f64,
    pub set_aside_max: usize,
}

/// Least time between two deletions of records that are done, in milliseconds.
const DELETE_INTERVAL_MS_MIN: u64 = 100;

/// Least time after which a job that another node keeps is run anew, in milliseconds: its reports are a third of it apart.
const HANDOVER_TIMEOUT_MS_MIN: u64 = 300;

/// Section `[dedup]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/relay-node.toml is their documentation")]
pub struct DedupSettings {
    pub window_h: u32,
    pub entries_max: usize,
}

impl DedupSettings {
    /// How long the key and id of an ended job stand for it.
    pub fn window(&self) -> Duration {
        Duration::from_secs(u64::from(self.window_h) * 3_600)
    }
}

/// Section `[inputs]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/relay-node.toml is their documentation")]
pub struct InputSettings {
    pub inline_bytes_max: usize,
    pub upload_bytes_max: u64,
    pub url_allow: Vec<String>,
    pub url_allow_private: Vec<String>,
    pub url_redirects_max: usize,
    pub url_timeout_ms: u64,
}

/// Section `[gateway]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/relay-node.toml is their documentation")]
pub struct GatewaySettings {
    pub threads: usize,
    pub connections_max: usize,
    pub handshakes_max: usize,
    pub hello_timeout_ms: u64,
    pub ping_interval_ms: u64,
    pub idle_timeout_ms: u64,
    pub body_timeout_ms: u64,
    pub body_bytes_min: usize,
    pub resume_secret_file: String,
}

/// Section `[builtin]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/relay-node.toml is their documentation")]
pub struct BuiltinSettings {
    pub slots: u32,
}

/// Section `[backends]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/relay-node.toml is their documentation")]
pub struct BackendSettings {
    #[serde(rename = "static")]
    pub entries: Vec<String>,
}

/// Section `[coordinator]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/relay-node.toml is their documentation")]
pub struct CoordinatorSettings {
    pub url: Vec<String>,
    pub token_file: String,
    pub heartbeat_interval_ms: u64,
    pub timeout_ms: u64,
}

/// A setting that cannot be used; the text says which and what to do.
#[derive(Debug, thiserror::Error)]
#[error("setting `{key}`: {problem}")]
pub struct Unusable {
    /// The whole key, with dots.
    pub key: &'static str,
    /// What is wrong.
    pub problem: String,
}

impl Settings {
    /// Defaults, then `file`, then the environment.
    ///
    /// # Errors
    /// [`SettingsError`]: an unreadable file, an unknown key, a value of the wrong type.
    pub fn load(file: Option<&std::path::Path>, env: Map<String, String>) -> Result<Self, SettingsError> {
        settings::load(DEFAULTS, file, env, &LISTS)
    }

    /// Checks the bounds that types do not say.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn check(&self) -> Result<(), Unusable> {
        let limit = relay_protocol::limits::INLINE_BYTES_MAX;
        let wrong = |key, problem: &str| Err(Unusable { key, problem: problem.to_owned() });
        if self.inputs.inline_bytes_max > limit {
            return wrong("inputs.inline_bytes_max", &format!("must be at most {limit}"));
        }
        self.store.check(self.inputs.upload_bytes_max)?;
        self.dlq.check()?;
        self.openai.check()?;
        self.tenants.rules()?;
        if let Err(problem) = crate::job::url_input::Networks::parse(&self.inputs.url_allow_private) {
            return wrong("inputs.url_allow_private", &problem);
        }
        self.check_lanes()?;
        if self.dedup.window_h == 0 || self.dedup.entries_max == 0 {
            return wrong("dedup.window_h", "and dedup.entries_max must be at least 1");
        }
        let breaker = &self.breaker;
        if breaker.failures == 0 || breaker.ejection_ms == 0 || !(0.0..=1.0).contains(&breaker.ejected_share_max) {
            return wrong(
                "breaker.failures",
                "and breaker.ejection_ms must be at least 1, breaker.ejected_share_max from 0 to 1",
            );
        }
        if self.poison.suspect_after == 0 || self.poison.crashes_max == 0 || self.poison.turns_ms == 0 {
            return wrong("poison.suspect_after", "poison.crashes_max and poison.turns_ms must be at least 1");
        }
        if self.retry.backend_s_max == 0 {
            return wrong("retry.backend_s_max", "must be at least 1");
        }
        if self.retry.attempts_max == 0 || self.retry.attempts_max > relay_protocol::limits::ATTEMPTS_MAX {
            return wrong("retry.attempts_max", "must be 1 to 16");
        }
        if self.gateway.threads == 0 || self.gateway.handshakes_max == 0 {
            return wrong("gateway.threads", "and gateway.handshakes_max must be at least 1");
        }
        let events = &self.events;
        if events.catch_up_readers_max == 0 || events.catch_up_waiting_max == 0 || events.catch_up_bytes_max == 0 {
            let problem = "events.catch_up_waiting_max and events.catch_up_bytes_max must be at least 1";
            return wrong("events.catch_up_readers_max", problem);
        }
        if self.gateway.body_timeout_ms == 0 {
            return wrong("gateway.body_timeout_ms", "must be at least 1");
        }
        Ok(())
    }

    fn check_lanes(&self) -> Result<(), Unusable> {
        let wrong = |key, problem: &str| Err(Unusable { key, problem: problem.to_owned() });
        if !self.lanes.weights.are_in_range() {
            return wrong("lanes.weights", &format!("each must be from 1 to {WEIGHT_MAX}"));
        }
        if self.lanes.running_max == 0 || self.lanes.waiting_max == 0 {
            return wrong("lanes.running_max", "and lanes.waiting_max must be at least 1");
        }
        if self.lanes.delete_interval_ms < DELETE_INTERVAL_MS_MIN {
            return wrong("lanes.delete_interval_ms", &format!("must be at least {DELETE_INTERVAL_MS_MIN}"));
        }
        if self.lanes.handover_timeout_ms < HANDOVER_TIMEOUT_MS_MIN {
            return wrong("lanes.handover_timeout_ms", &format!("must be at least {HANDOVER_TIMEOUT_MS_MIN}"));
        }
        let is_share = |share: f64| share > 0.0 && share <= 1.0;
        if !is_share(self.lanes.tenant_share_max) || !is_share(self.lanes.model_share_max) {
            return wrong("lanes.tenant_share_max", "and lanes.model_share_max must be above 0.0 and at most 1.0");
        }
        if self.lanes.set_aside_max == 0 {
            return wrong("lanes.set_aside_max", "must be at least 1");
        }
        if !Tiers::new(self.retry.tiers_ms).are_in_order() {
            return wrong("retry.tiers_ms", "must be five times above 0, each longer than the one before");
        }
        if let Some(lane) = self.lanes.names.iter().find(|lane| !relay_protocol::limits::is_lane(lane)) {
            return wrong(
                "lanes.names",
                &format!("{lane:?} is no name of a lane: letters, digits, - and _ only, then .interactive or .batch"),
            );
        }
        Ok(())
    }

    /// The node's name: as set, else the machine's.
    pub fn name(&self) -> String {
        if !self.node.name.is_empty() {
            return self.node.name.clone();
        }
        let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
        let host = host.trim();
        if host.is_empty() { "relay-node".to_owned() } else { host.to_owned() }
    }

    /// Slots of the built-in backend.
    pub fn builtin_slots(&self) -> u32 {
        match self.builtin.slots {
            0 => std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
            slots => slots,
        }
    }

    /// Time that sessions may take to move to other nodes when the node is told to stop.
    pub fn move_timeout(&self) -> Duration {
        Duration::from_millis(self.node.move_timeout_ms)
    }

    /// Time that running jobs may take to end when the node is told to stop.
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.node.drain_timeout_ms)
    }
}
