//! Settings of the coordinator; meaning, unit and default of each key are in `config/coordinator.toml`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use relay_log::kafka::KafkaSettings;
use relay_runtime::auth::AuthSettings;
use relay_runtime::settings::{self, Map, SettingsError};
use relay_runtime::telemetry::TelemetrySettings;
use serde::Deserialize;

use crate::backends::{BackendEntry, DnsEntry, EntryDefaults, EntryError, entry};
use crate::election::ElectionSettings;
use crate::leases::{LATE_HEARTBEAT_MS, LeaseRules};
use crate::placement::PlacementSettings;
use crate::topics::{self, TopicSettings, TopicSettingsError};
use crate::view::ViewSettings;

/// The defaults, as users read them.
pub const DEFAULTS: &str = include_str!("../config/coordinator.toml");

/// Keys whose variable is a comma list.
const LISTS: [&str; 5] = ["auth.tokens", "backends.static", "backends.dns", "backends.dns_servers", "topics.lanes"];

/// An hour, in milliseconds: longest time that most settings may be.
const HOUR_MS: u64 = 3_600_000;

/// Settings of one coordinator.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/coordinator.toml is their documentation")]
pub struct Settings {
    pub listen: String,
    pub name: String,
    pub http: HttpSettings,
    pub election: ElectionSettings,
    pub nodes: NodeSettings,
    pub placement: PlacementSettings,
    pub leases: LeaseSettings,
    pub backends: BackendSettings,
    pub topics: TopicSettings,
    pub view: ViewSettings,
    pub kafka: KafkaSection,
    pub telemetry: TelemetrySettings,
    pub auth: AuthSettings,
}

/// Section `[http]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/coordinator.toml is their documentation")]
pub struct HttpSettings {
    pub threads: usize,
    pub connections_max: usize,
    pub drain_timeout_ms: u64,
}

/// Section `[nodes]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/coordinator.toml is their documentation")]
pub struct NodeSettings {
    pub heartbeat_interval_ms: u64,
    pub heartbeat_fast_ms: u64,
    pub node_timeout_ms: u64,
    pub forget_after_ms: u64,
    pub nodes_max: usize,
}

/// Section `[leases]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/coordinator.toml is their documentation")]
pub struct LeaseSettings {
    pub lease_ttl_ms: u64,
    pub restart_wait_ms: u64,
    pub turn_ms: u64,
}

/// Section `[backends]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/coordinator.toml is their documentation")]
pub struct BackendSettings {
    #[serde(rename = "static")]
    pub entries: Vec<String>,
    pub dns: Vec<String>,
    pub dns_servers: Vec<SocketAddr>,
    pub dns_interval_ms: u64,
    pub dns_timeout_ms: u64,
    pub dns_keep_ms: u64,
    pub drain_forget_ms: u64,
    pub slots_default: u32,
    pub probe_interval_ms: u64,
    pub probe_timeout_ms: u64,
    pub probe_backoff_max_ms: u64,
    #[serde(default, deserialize_with = "settings::empty_is_none")]
    pub api_key_file: Option<String>,
}

/// Section `[kafka]`: what the coordinator needs of [`KafkaSettings`], and whether it creates topics.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/coordinator.toml is their documentation")]
pub struct KafkaSection {
    pub brokers: String,
    pub create_topics: bool,
    pub replication_factor: u16,
    pub min_in_sync_replicas: u16,
    pub request_timeout_ms: u32,
    pub delivery_timeout_ms: u32,
    #[serde(default)]
    pub extra: BTreeMap<String, String>,
}

impl std::fmt::Debug for KafkaSection {
    /// Names the keys of `extra` without their values: they hold passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSection")
            .field("brokers", &self.brokers)
            .field("create_topics", &self.create_topics)
            .field("replication_factor", &self.replication_factor)
            .field("min_in_sync_replicas", &self.min_in_sync_replicas)
            .field("extra", &self.extra.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unusable {
    /// A number or a name is outside its bounds.
    #[error("setting `{key}`: {problem}")]
    Key {
        /// The whole key, with dots.
        key: &'static str,
        /// What is wrong, and what to write.
        problem: String,
    },
    /// `backends.static` or `backends.dns`.
    #[error("setting {0}")]
    Backends(#[from] EntryError),
    /// `[topics]`.
    #[error("setting {0}")]
    Topics(#[from] TopicSettingsError),
}

impl Settings {
    /// Defaults, then `file`, then the environment.
    ///
    /// # Errors
    /// [`SettingsError`]: an unreadable file, an unknown key, a value of the wrong type.
    pub fn load(file: Option<&Path>, env: Map<String, String>) -> Result<Self, SettingsError> {
        settings::load(DEFAULTS, file, env, &LISTS)
    }

    /// The defaults alone, for a coordinator inside another process.
    ///
    /// # Errors
    /// [`SettingsError::Defaults`]: a fault of the program.
    pub fn defaults() -> Result<Self, SettingsError> {
        Self::load(None, Map::new())
    }

    /// Checks the bounds that types do not say.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn check(&self) -> Result<(), Unusable> {
        let (nodes, leases, backends) = (&self.nodes, &self.leases, &self.backends);
        if self.name.len() > 200 || !relay_protocol::limits::is_name(&self.name) {
            return Err(unusable("name", "1 to 200 bytes, no control characters".to_owned()));
        }
        within("http.threads", self.http.threads as u64, 1, 256)?;
        within("http.connections_max", self.http.connections_max as u64, 1, 1_000_000)?;
        within("http.drain_timeout_ms", self.http.drain_timeout_ms, 1, HOUR_MS)?;
        self.check_election()?;
        within("nodes.heartbeat_interval_ms", nodes.heartbeat_interval_ms, LATE_HEARTBEAT_MS, 60_000)?;
        within("nodes.heartbeat_fast_ms", nodes.heartbeat_fast_ms, LATE_HEARTBEAT_MS, nodes.heartbeat_interval_ms)?;
        within("nodes.node_timeout_ms", nodes.node_timeout_ms, 2 * nodes.heartbeat_interval_ms + 1, HOUR_MS)?;
        within("nodes.forget_after_ms", nodes.forget_after_ms, nodes.node_timeout_ms, 24 * HOUR_MS)?;
        within("nodes.nodes_max", nodes.nodes_max as u64, 1, 100_000)?;
        within("placement.core_sessions", self.placement.core_sessions.into(), 0, 1_000_000)?;
        within("placement.mib_per_s_sessions", self.placement.mib_per_s_sessions.into(), 0, 1_000_000)?;
        within("leases.lease_ttl_ms", leases.lease_ttl_ms, nodes.node_timeout_ms + 1, HOUR_MS)?;
        if leases.restart_wait_ms != 0 {
            within("leases.restart_wait_ms", leases.restart_wait_ms, leases.lease_ttl_ms, HOUR_MS)?;
        }
        within("leases.turn_ms", leases.turn_ms, 1, HOUR_MS)?;
        within("backends.slots_default", backends.slots_default.into(), 1, entry::SLOTS_MAX.into())?;
        within("backends.probe_interval_ms", backends.probe_interval_ms, 10, HOUR_MS)?;
        within("backends.probe_timeout_ms", backends.probe_timeout_ms, 10, 60_000)?;
        within("backends.probe_backoff_max_ms", backends.probe_backoff_max_ms, 10, HOUR_MS)?;
        within("backends.dns_interval_ms", backends.dns_interval_ms, 10, HOUR_MS)?;
        within("backends.dns_timeout_ms", backends.dns_timeout_ms, 10, 60_000)?;
        within("backends.dns_keep_ms", backends.dns_keep_ms, 0, 24 * HOUR_MS)?;
        within("backends.drain_forget_ms", backends.drain_forget_ms, 1_000, 30 * 24 * HOUR_MS)?;
        within("view.rows_max", self.view.rows_max, 1, 1_000_000_000)?;
        within("view.page_max", self.view.page_max as u64, 1, 10_000)?;
        within("view.batch_events_max", self.view.batch_events_max as u64, 1, 100_000)?;
        within("view.batch_wait_ms", self.view.batch_wait_ms, 1, 60_000)?;
        self.dns_entries()?;
        topics::specs(&self.topics)?;
        Ok(())
    }

    fn check_election(&self) -> Result<(), Unusable> {
        let election = &self.election;
        within("election.beat_ms", election.beat_ms, 10, 60_000)?;
        if election.silence_ms != 0 {
            // Three beats: one that comes late must not end a leadership.
            within("election.confirm_ms", election.confirm_ms, 3 * election.beat_ms, HOUR_MS)?;
            // Nodes take half a lease of silence for the end of a leader.
            within("leases.lease_ttl_ms", self.leases.lease_ttl_ms, 2 * election.confirm_ms, HOUR_MS)?;
            within(
                "election.silence_ms",
                election.silence_ms,
                election.confirm_ms + election.confirm_ms / 10,
                HOUR_MS,
            )?;
        }
        let is_url = |url: &str| {
            reqwest::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        };
        if !election.advertised_url.is_empty() && !is_url(&election.advertised_url) {
            return Err(unusable("election.advertised_url", "write http://HOST:PORT or https://HOST:PORT".to_owned()));
        }
        Ok(())
    }

    /// The backends that `backends.static` names.
    ///
    /// # Errors
    /// [`EntryError`].
    pub fn backend_entries(&self) -> Result<Vec<BackendEntry>, EntryError> {
        let key_file = self.backends.api_key_file.as_ref().map(PathBuf::from);
        entry::read_all(&self.backends.entries, self.entry_defaults(key_file.as_ref()))
    }

    /// The names that `backends.dns` lists.
    ///
    /// # Errors
    /// [`EntryError`], also of `backends.static`.
    pub fn dns_entries(&self) -> Result<Vec<DnsEntry>, EntryError> {
        let key_file = self.backends.api_key_file.as_ref().map(PathBuf::from);
        entry::read_dns(&self.backends.dns, &self.backend_entries()?, self.entry_defaults(key_file.as_ref()))
    }

    fn entry_defaults<'a>(&self, api_key_file: Option<&'a PathBuf>) -> EntryDefaults<'a> {
        EntryDefaults { slots: self.backends.slots_default, api_key_file }
    }

    /// The log's settings.
    pub fn kafka_settings(&self) -> KafkaSettings {
        let kafka = &self.kafka;
        KafkaSettings {
            brokers: kafka.brokers.clone(),
            client_id: self.name.clone(),
            replication_factor: kafka.replication_factor,
            min_in_sync_replicas: kafka.min_in_sync_replicas,
            request_timeout_ms: kafka.request_timeout_ms,
            delivery_timeout_ms: kafka.delivery_timeout_ms,
            extra: kafka.extra.clone(),
            ..KafkaSettings::default()
        }
    }

    /// The lease table's times.
    pub fn lease_rules(&self) -> LeaseRules {
        let LeaseSettings { lease_ttl_ms, restart_wait_ms, turn_ms } = self.leases;
        LeaseRules { lease_ttl_ms, restart_wait_ms, turn_ms }
    }
}

fn unusable(key: &'static str, problem: String) -> Unusable {
    Unusable::Key { key, problem }
}

fn within(key: &'static str, value: u64, min: u64, max: u64) -> Result<(), Unusable> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(unusable(key, format!("must be {min} to {max}, not {value}")))
}
